"""From a container and what was made ready for it to its config.json (OCI runtime spec 1.2)."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from sampan.engine.init_program import write_init
from sampan.engine.model import Ulimit
from sampan.engine.profiles import apparmor
from sampan.engine.spec import mounts, security
from sampan.engine.spec.capability_sets import bounding, process_sets
from sampan.engine.spec.devices import container_devices
from sampan.engine.spec.environment import container_environment, with_home
from sampan.engine.spec.inputs import SpecInputs
from sampan.engine.spec.resources import container_resources
from sampan.engine.spec.sysctls import container_sysctls
from sampan.engine.spec.users import lookup_user
from sampan.errors import InvalidParameter

OCI_VERSION = "1.1.0"  # the lowest that has all we use, since runtimes refuse versions newer than theirs

_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
    "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@cache
def masked_paths() -> tuple[str, ...]:
    """What of /proc and /sys a container must not see: it tells of the host, or of other containers."""
    cpus = "/sys/devices/system/cpu"
    try:
        throttles = [f"{cpus}/{name}/thermal_throttle" for name in os.listdir(cpus) if name.startswith("cpu")]
    except FileNotFoundError:
        throttles = []
    return (*_MASKED, *sorted(path for path in throttles if os.path.isdir(path)))


def build_spec(inputs: SpecInputs) -> dict[str, Any]:
    """The container's config.json.

    Raises:
        InvalidParameter: an option that cannot be carried out, in Docker's words where it has some.
        Unsupported: one that this version does not offer.
        SampanError: the default AppArmor profile cannot be loaded.
    """
    container = inputs.container
    config, host_config = container.config, container.host_config
    options = security.parse(host_config.security_opt or [])
    names = bounding(host_config.cap_add or [], host_config.cap_drop or [], host_config.privileged)
    user = lookup_user(inputs.rootfs, config.user, host_config.group_add or [])
    init = _init(inputs)
    args = [container.path, *container.args]
    process: dict[str, Any] = {
        "args": [mounts.INIT_PATH, "--", *args] if init is not None else args,
        "cwd": config.working_dir or "/",
        "env": with_home(container_environment(container, config.tty), user.home),
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids},
        "capabilities": process_sets(names, user.uid),
        "noNewPrivileges": options.no_new_privileges,
        "rlimits": _rlimits(host_config.ulimits or []),
    }
    size = host_config.console_size
    if config.tty and size and len(size) == 2 and all(size):
        process["consoleSize"] = {"height": size[0], "width": size[1]}
    # Going below one's own value needs CAP_SYS_RESOURCE; who asks for nothing inherits a harmless one.
    if host_config.oom_score_adj or _own_oom_score_adj() < 0:
        process["oomScoreAdj"] = host_config.oom_score_adj
    profile = security.apparmor_profile(options, host_config.privileged)
    if profile:
        if profile == apparmor.NAME:
            apparmor.ensure()
        process["apparmorProfile"] = profile
    spec: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {"path": inputs.rootfs, "readonly": host_config.readonly_rootfs},
        "mounts": mounts.container_mounts(inputs, init, options.writable_cgroups, (user.uid, user.gid)),
        "linux": _linux(inputs, options, names),
    }
    if host_config.uts_mode != "host":
        spec["hostname"] = config.hostname
        if config.domainname:
            spec["domainname"] = config.domainname
    if host_config.annotations:
        spec["annotations"] = dict(host_config.annotations)
    return spec


def _linux(inputs: SpecInputs, options: security.SecurityOptions, names: list[str]) -> dict[str, Any]:
    container = inputs.container
    host_config = container.host_config
    devices, rules = container_devices(host_config)
    linux: dict[str, Any] = {
        "namespaces": _namespaces(inputs),
        "cgroupsPath": inputs.cgroups_path,
        "resources": {**container_resources(host_config), "devices": rules},
        "sysctl": container_sysctls(host_config),
    }
    if devices:
        linux["devices"] = devices
    seccomp = security.seccomp_profile(options, host_config, names)
    if seccomp is not None:
        linux["seccomp"] = seccomp
    if not (host_config.privileged or options.system_paths_unconfined):
        masked, readonly = host_config.masked_paths, host_config.readonly_paths
        linux["maskedPaths"] = list(masked_paths() if masked is None else masked)
        linux["readonlyPaths"] = list(READONLY_PATHS if readonly is None else readonly)
    propagation = mounts.root_propagation(inputs.mounts)
    if propagation:
        linux["rootfsPropagation"] = propagation
    return linux


def _namespaces(inputs: SpecInputs) -> list[dict[str, str]]:
    host_config = inputs.container.host_config
    namespaces: list[dict[str, str]] = [{"type": "mount"}]
    if inputs.netns_path is not None:
        namespaces.append({"type": "network", "path": inputs.netns_path})
    for kind, mode in (
        ("uts", host_config.uts_mode),
        ("pid", host_config.pid_mode),
        ("ipc", host_config.ipc_mode),
        ("cgroup", host_config.cgroupns_mode),
    ):
        if kind in inputs.joins:
            namespaces.append({"type": kind, "path": inputs.joins[kind]})
        elif mode != "host" and os.path.exists(f"/proc/self/ns/{kind}"):
            namespaces.append({"type": kind})
    return namespaces


def _init(inputs: SpecInputs) -> str | None:
    """The program for `--init`; without a pid namespace of its own the container has no use for one."""
    host_config = inputs.container.host_config
    if not host_config.init or host_config.pid_mode:
        return None
    if inputs.init_binary is not None:
        return inputs.init_binary
    if inputs.files_dir is None:
        raise InvalidParameter("--init: there is no directory to put the program in")
    return write_init(inputs.files_dir)


def _rlimits(ulimits: list[Ulimit]) -> list[dict[str, Any]]:
    def number(value: int) -> int:
        return 2**64 - 1 if value < 0 else value

    return [
        {"type": f"RLIMIT_{limit.name.upper()}", "soft": number(limit.soft), "hard": number(limit.hard)}
        for limit in ulimits
    ]


def _own_oom_score_adj() -> int:
    with open("/proc/self/oom_score_adj", "rb") as file:
        return int(file.read())
