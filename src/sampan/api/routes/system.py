"""`/_ping`, `/version`, `/info`: who we are."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

from sampan.api.shapes.registries import registry_config
from sampan.api.shapes.times import rfc3339
from sampan.engine import Engine
from sampan.engine.core import in_thread
from sampan.engine.machine import (
    ipv4_forwarding,
    machine,
    missing_features,
    seccomp_supported,
)
from sampan.engine.options import OWN_RUNTIME, EngineOptions, known_runtimes
from sampan.engine.profiles import apparmor
from sampan.http import Request, Response, Routes, empty, json_response, text
from sampan.linux import cgroups
from sampan.logdrivers.options import DRIVERS as LOG_DRIVERS

routes = Routes()

_PING_HEADERS = {
    "Builder-Version": "1",
    "Swarm": "inactive",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}


@routes.get("/_ping")
async def ping(_: Request) -> Response:
    """Are you there?"""
    return text("OK", headers=_PING_HEADERS)


@routes.head("/_ping")
async def ping_head(_: Request) -> Response:
    """Are you there? In fewer bytes."""
    return empty(200, headers=_PING_HEADERS)


@routes.get("/version")
async def version(request: Request) -> Response:
    """Who we are and what we speak."""
    here = machine()
    server = request.server
    api = ".".join(map(str, server.api_version))
    oldest = ".".join(map(str, server.min_api_version))
    python = f"python{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    built = rfc3339(_built_at_ns())
    details = {
        "ApiVersion": api,
        "Arch": here.go_architecture,
        "BuildTime": built,
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": python,
        "KernelVersion": here.kernel,
        "MinAPIVersion": oldest,
        "Os": "linux",
    }
    return json_response(
        {
            "Platform": {"Name": "Sampan"},
            "Components": [{"Name": "Engine", "Version": server.version, "Details": details}],
            "Version": server.version,
            "ApiVersion": api,
            "MinAPIVersion": oldest,
            "GitCommit": "",
            "GoVersion": python,
            "Os": "linux",
            "Arch": here.go_architecture,
            "KernelVersion": here.kernel,
            "BuildTime": built,
        }
    )


def _built_at_ns() -> int:
    """When this code was installed: the newest we know without asking the package index."""
    import sampan

    return int(os.stat(sampan.__file__).st_mtime) * 1_000_000_000


def _runtimes(options: EngineOptions) -> dict[str, dict[str, Any]]:
    shown: dict[str, dict[str, Any]] = {OWN_RUNTIME: {"path": "sampan-runtime"}}
    for name, (path, *arguments) in sorted(known_runtimes(options).items()):
        shown[name] = {"path": path, **({"runtimeArgs": arguments} if arguments else {})}
    return shown


@routes.get("/info")
async def info(request: Request) -> Response:
    """The engine, its objects and its machine."""
    engine: Engine = request.engine
    here = machine()
    options = engine.options
    features = cgroups.features(bool(options.cgroup_parent))
    states = [live.container.state for live in engine.containers.values()]
    images = await in_thread(engine.images.list)
    driver_status = await in_thread(engine.driver.status)
    security = ["name=seccomp,profile=builtin"] if seccomp_supported() else []
    security += ["name=apparmor"] if apparmor.supported() else []
    security += ["name=cgroupns"] if os.path.exists("/proc/self/ns/cgroup") else []
    security += ["name=rootless"] if options.rootless else []
    registry = engine.images.registries.config
    proxies = registry.proxies.shown()
    shape: dict[str, Any] = {
        "ID": engine.id,
        "Containers": len(states),
        "ContainersRunning": sum(state.status == "running" for state in states),
        "ContainersPaused": sum(state.status == "paused" for state in states),
        "ContainersStopped": sum(not state.running for state in states),
        "Images": len(images),
        "Driver": engine.driver.name,
        "DriverStatus": [list(pair) for pair in driver_status],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": list(LOG_DRIVERS),
        },
        "MemoryLimit": features.memory,
        "SwapLimit": features.swap,
        "CpuCfsPeriod": features.cpu_cfs,
        "CpuCfsQuota": features.cpu_cfs,
        "CPUShares": features.cpu_shares,
        "CPUSet": features.cpuset,
        "PidsLimit": features.pids,
        "OomKillDisable": features.oom_kill_disable,
        "IPv4Forwarding": ipv4_forwarding(),
        "Debug": request.server.debug,
        "NFd": len(os.listdir("/proc/self/fd")),
        "NGoroutines": len(asyncio.all_tasks()) + threading.active_count(),
        "SystemTime": rfc3339(time.time_ns()),
        "LoggingDriver": engine.options.log_driver,
        "CgroupDriver": "cgroupfs" if options.cgroup_parent else "none",
        "CgroupVersion": str(features.version),
        "NEventsListener": engine.events.listeners,
        "KernelVersion": here.kernel,
        "OperatingSystem": here.operating_system,
        "OSVersion": here.os_version,
        "OSType": "linux",
        "Architecture": here.architecture,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": registry_config(registry),
        "NCPU": here.cpus,
        "MemTotal": here.memory_bytes,
        "GenericResources": None,
        "DockerRootDir": str(engine.options.data_root),
        "HttpProxy": proxies[0],
        "HttpsProxy": proxies[1],
        "NoProxy": proxies[2],
        "Name": here.name,
        "Labels": engine.options.labels,
        "ExperimentalBuild": False,
        "ServerVersion": request.server.version,
        "Runtimes": _runtimes(engine.options),
        "DefaultRuntime": engine.options.default_runtime,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": security,
        "CDISpecDirs": [],
        "FirewallBackend": {"Driver": "nftables"},
        "Warnings": [*missing_features(features), *engine.networks.warnings, *engine.options.warnings],
    }
    if pools := engine.networks.options.address_pools:
        shape["DefaultAddressPools"] = [{"Base": pool.base, "Size": pool.size} for pool in pools]
    if request.api_version < (1, 50):
        shape |= {
            name: _switched_on(f"net/bridge/bridge-nf-call-{table}")
            for name, table in (("BridgeNfIptables", "iptables"), ("BridgeNfIp6tables", "ip6tables"))
        }
    if request.api_version < (1, 49):
        for commit in ("ContainerdCommit", "RuncCommit", "InitCommit"):
            shape[commit] = {"ID": "", "Expected": ""}
        shape["RegistryConfig"] |= {
            "AllowNondistributableArtifactsCIDRs": [],
            "AllowNondistributableArtifactsHostnames": [],
        }
    if request.api_version < (1, 42):
        shape |= {"KernelMemory": False, "KernelMemoryTCP": False}
    if request.api_version < (1, 25):
        names = [option.partition(",")[0].removeprefix("name=") for option in security]
        shape |= {"SecurityOptions": names, "ExecutionDriver": "<not supported>"}
    return json_response(shape)


def _switched_on(name: str) -> bool:
    try:
        return Path("/proc/sys", name).read_text().strip() == "1"
    except OSError:
        return False
