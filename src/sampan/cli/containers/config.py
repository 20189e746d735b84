"""From the flags of `run` and `create` to the body of POST /containers/create."""

from __future__ import annotations

from sampan.cli.containers.limits import parse_device, parse_gpus, parse_restart, parse_ulimit, rates
from sampan.cli.containers.mounts import parse_mount, parse_tmpfs, split_volumes
from sampan.cli.containers.networks import networking
from sampan.cli.failures import CommandError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.flags import Values

# flag -> member of HostConfig that takes its value as it is.
HOST_PLAIN = {
    "blkio-weight": "BlkioWeight",
    "cap-add": "CapAdd",
    "cap-drop": "CapDrop",
    "cgroup-parent": "CgroupParent",
    "cgroupns": "CgroupnsMode",
    "cidfile": "ContainerIDFile",
    "cpu-count": "CpuCount",
    "cpu-percent": "CpuPercent",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "cpuset-cpus": "CpusetCpus",
    "cpuset-mems": "CpusetMems",
    "device-cgroup-rule": "DeviceCgroupRules",
    "dns": "Dns",
    "egress": "Egress",
    "dns-search": "DnsSearch",
    "add-host": "ExtraHosts",
    "group-add": "GroupAdd",
    "init": "Init",
    "io-maxbandwidth": "IOMaximumBandwidth",
    "io-maxiops": "IOMaximumIOps",
    "ipc": "IpcMode",
    "isolation": "Isolation",
    "kernel-memory": "KernelMemory",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "oom-kill-disable": "OomKillDisable",
    "oom-score-adj": "OomScoreAdj",
    "pid": "PidMode",
    "pids-limit": "PidsLimit",
    "privileged": "Privileged",
    "publish-all": "PublishAllPorts",
    "read-only": "ReadonlyRootfs",
    "rm": "AutoRemove",
    "runtime": "Runtime",
    "shm-size": "ShmSize",
    "userns": "UsernsMode",
    "uts": "UTSMode",
    "volume-driver": "VolumeDriver",
    "volumes-from": "VolumesFrom",
}
_MODES: dict[str, tuple[str, Callable[[str], bool]]] = {
    "pid": ("PID", lambda mode: mode in ("", "host") or mode.startswith("container:")),
    "uts": ("UTS", lambda mode: mode in ("", "host")),
    "userns": ("USER", lambda mode: mode in ("", "host")),
    "cgroupns": ("CGROUP", lambda mode: mode in ("", "host", "private")),
}


def create_body(values: Values, image: str, command: list[str], detached: bool) -> dict[str, Any]:
    """The request that makes the container.

    Raises:
        CommandError, ValueError, OSError: options that contradict each other, unreadable files.
    """
    _check(values)
    config = _config(values, image, command, detached)
    host = _host(values)
    mode, endpoints = networking(values)
    host["NetworkMode"] = mode
    _storage(values, config, host)
    _published(values, config, host)
    _health(values, config)
    if values.text("mac-address"):
        config["MacAddress"] = _mac_address(values.text("mac-address"))
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints}}


def _mac_address(text: str) -> str:
    """A hardware address of 6, 8 or 20 bytes: pairs with : or - between, or fours with dots."""
    for mark, digits in ((":", 2), ("-", 2), (".", 4)):
        parts = text.strip().split(mark)
        whole = all(len(part) == digits and set(part) <= set("0123456789abcdefABCDEF") for part in parts)
        if whole and len(parts) * digits // 2 in (6, 8, 20):
            return text
    raise CommandError(f"{text} is not a valid mac address")


def _check(values: Values) -> None:
    for flag, (name, allowed) in _MODES.items():
        if not allowed(values.text(flag)):
            raise CommandError(f"--{flag}: invalid {name} mode")
    swappiness = values.number("memory-swappiness")
    if swappiness != -1 and not 0 <= swappiness <= 100:
        raise CommandError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    if values.given("restart") and values.on("rm") and values.text("restart") not in ("", "no"):
        raise CommandError("conflicting options: cannot specify both --restart and --rm")
    if values.text("pull") not in ("always", "missing", "never"):
        raise CommandError(
            f'invalid pull option: \'{values.text("pull")}\': must be one of "always", "missing" or "never"'
        )


def _config(values: Values, image: str, command: list[str], detached: bool) -> dict[str, Any]:
    attach = values.items("attach")
    interactive, tty = values.on("interactive"), values.on("tty")
    if detached and attach:
        raise UsageError("conflicting options: cannot specify both --attach and --detach")
    attach_in = not detached and ("stdin" in attach or (not attach and interactive))
    env = [pair for path in values.items("env-file") for pair in _pairs(path, True)] + values.items("env")
    labels = [pair for path in values.items("label-file") for pair in _pairs(path, False)] + values.items(
        "label"
    )
    config: dict[str, Any] = {
        "Image": image,
        "Hostname": values.text("hostname"),
        "Domainname": values.text("domainname"),
        "User": values.text("user"),
        "AttachStdin": attach_in,
        "AttachStdout": not detached and (not attach or "stdout" in attach),
        "AttachStderr": not detached and (not attach or "stderr" in attach),
        "Tty": tty,
        "OpenStdin": interactive,
        "StdinOnce": interactive and attach_in,
        "Env": env,
        "Cmd": command or None,
        "WorkingDir": values.text("workdir"),
        "Labels": dict(one.partition("=")[::2] for one in labels),
    }
    if values.given("entrypoint"):
        # An empty entrypoint takes the image's away.
        config["Entrypoint"] = [values.text("entrypoint")]
    if values.given("stop-signal"):
        config["StopSignal"] = values.text("stop-signal")
    if values.given("stop-timeout"):
        config["StopTimeout"] = values.number("stop-timeout")
    return config


def _pairs(path: str, from_environment: bool) -> list[str]:
    from sampan.cli.containers.files import read_pairs

    return read_pairs(path, from_environment)


def _host(values: Values) -> dict[str, Any]:
    host: dict[str, Any] = {member: values[flag] for flag, member in HOST_PLAIN.items() if values.given(flag)}
    host["RestartPolicy"] = parse_restart(values.text("restart"))
    host["LogConfig"] = {"Type": values.text("log-driver"), "Config": _map(values.items("log-opt"))}
    if values.text("log-driver") == "none" and values.items("log-opt"):
        raise CommandError("invalid logging opts for driver none")
    options = [*values.items("dns-option"), *values.items("dns-opt")]
    if options:
        host["DnsOptions"] = options
    if values.given("memory-swappiness"):
        host["MemorySwappiness"] = values.number("memory-swappiness")
    if values.given("link"):
        host["Links"] = values.items("link")
    for flag, member in (("sysctl", "Sysctls"), ("annotation", "Annotations"), ("storage-opt", "StorageOpt")):
        if values.given(flag):
            host[member] = _map(values.items(flag))
    if values.given("ulimit"):
        by_name = {one["Name"]: one for one in map(parse_ulimit, values.items("ulimit"))}
        host["Ulimits"] = [by_name[name] for name in sorted(by_name)]
    if values.given("device"):
        # A name with `=` is a CDI device.
        plain = [one for one in values.items("device") if "=" not in one]
        host["Devices"] = [parse_device(one) for one in plain]
        named = [one for one in values.items("device") if "=" in one]
        if named:
            host["DeviceRequests"] = [{"Driver": "cdi", "DeviceIDs": named}]
    if values.given("gpus"):
        host.setdefault("DeviceRequests", []).extend(parse_gpus(one) for one in values.items("gpus"))
    if values.given("blkio-weight-device"):
        host["BlkioWeightDevice"] = [
            {"Path": path, "Weight": int(weight)}
            for path, _, weight in (one.partition(":") for one in values.items("blkio-weight-device"))
        ]
    for flag, member in (
        ("device-read-bps", "BlkioDeviceReadBps"),
        ("device-write-bps", "BlkioDeviceWriteBps"),
        ("device-read-iops", "BlkioDeviceReadIOps"),
        ("device-write-iops", "BlkioDeviceWriteIOps"),
    ):
        if values.given(flag):
            host[member] = rates(values.items(flag), flag.endswith("bps"))
    _security(values.items("security-opt"), host)
    if values.on("tty"):
        from sampan.cli.terminal import size

        host["ConsoleSize"] = list(size(1) or (0, 0))
    return host


def _map(given: list[str]) -> dict[str, str]:
    return dict(one.partition("=")[::2] for one in given)


def _security(given: list[str], host: dict[str, Any]) -> None:
    options = []
    for text in given:
        if text == "systempaths=unconfined":
            host["MaskedPaths"] = []
            host["ReadonlyPaths"] = []
            continue
        name, equals, value = text.partition("=")
        if not equals and text != "no-new-privileges":
            name, equals, value = text.partition(":")
            if not equals:
                raise CommandError(f'Invalid --security-opt: "{text}"')
        if name == "seccomp" and value not in ("unconfined", "builtin"):
            from sampan.cli.jsontext import dump, parse

            try:
                with open(value, "rb") as file:
                    profile = file.read()
            except OSError as error:
                reason = (error.strerror or "").lower()
                raise CommandError(
                    f"opening seccomp profile ({value}) failed: open {value}: {reason}"
                ) from None
            try:
                text = f"seccomp={dump(parse(profile))}"
            except ValueError as error:
                raise CommandError(f"compacting json for seccomp profile ({value}) failed: {error}") from None
        options.append(text)
    if options:
        host["SecurityOpt"] = options


def _storage(values: Values, config: dict[str, Any], host: dict[str, Any]) -> None:
    binds, volumes = split_volumes(values.items("volume"))
    if binds:
        host["Binds"] = binds
    if volumes:
        config["Volumes"] = volumes
    if values.given("tmpfs"):
        host["Tmpfs"] = parse_tmpfs(values.items("tmpfs"))
    if values.given("mount"):
        host["Mounts"] = [parse_mount(one) for one in values.items("mount")]


def _published(values: Values, config: dict[str, Any], host: dict[str, Any]) -> None:
    if not values.given("publish") and not values.given("expose"):
        return
    from sampan.cli.containers.ports import parse_expose, parse_publish

    bindings = parse_publish(values.items("publish"))
    if bindings:
        host["PortBindings"] = bindings
    exposed = {**{port: {} for port in bindings}, **parse_expose(values.items("expose"))}
    if exposed:
        config["ExposedPorts"] = exposed


def _health(values: Values, config: dict[str, Any]) -> None:
    flags = (
        "health-interval",
        "health-timeout",
        "health-start-period",
        "health-start-interval",
        "health-retries",
    )
    wanted = values.given("health-cmd") or any(values.given(flag) for flag in flags)
    if values.given("health-on-failure"):
        config["HealthcheckOnFailureAction"] = values.text("health-on-failure")
    if values.on("no-healthcheck"):
        if wanted:
            raise CommandError("--no-healthcheck conflicts with --health-* options")
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if not wanted:
        return
    for flag in flags:
        if values.number(flag) < 0:
            raise CommandError(f"--{flag} cannot be negative")
    config["Healthcheck"] = {
        "Test": ["CMD-SHELL", values.text("health-cmd")] if values.text("health-cmd") else None,
        "Interval": values.number("health-interval"),
        "Timeout": values.number("health-timeout"),
        "StartPeriod": values.number("health-start-period"),
        "StartInterval": values.number("health-start-interval"),
        "Retries": values.number("health-retries"),
    }
