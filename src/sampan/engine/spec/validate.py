"""`docker create`'s checks of options: what is wrong or not offered is refused by name, in Docker's words.

What this kernel cannot limit is discarded with a warning, as Docker does; defaults that Docker shows in
inspect are filled in.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

from sampan.engine import ports
from sampan.engine.model import ContainerConfig, HostConfig
from sampan.engine.spec import capability_sets, devices, mounts, security, sysctls
from sampan.engine.spec.build import READONLY_PATHS, masked_paths
from sampan.engine.spec.limits import check_limits
from sampan.errors import InvalidParameter, Unsupported
from sampan.linux.cgroups import Features, features
from sampan.linux.rlimits import NUMBERS
from sampan.oci.quantities import parse_size


def validate_host_config(
    config: ContainerConfig, host_config: HostConfig, machine: Features | None = None
) -> list[str]:
    """Check a container's options and complete them in place.

    Args:
        machine: what the cgroups can do; this machine's when not given.

    Returns:
        Warnings for the user.

    Raises:
        InvalidParameter: a value that is wrong, or two that contradict each other.
        Unsupported: an option of Docker's that this version does not offer.
    """
    machine = machine or features()
    _refuse_unsupported(config, host_config)
    _check_modes(config, host_config)
    warnings = ports.check(config, host_config) + check_limits(host_config, machine)
    if not -1000 <= host_config.oom_score_adj <= 1000:
        raise InvalidParameter(
            f"Invalid value {host_config.oom_score_adj}, range for oom score adj is [-1000, 1000]"
        )
    if host_config.shm_size < 0:
        raise InvalidParameter("SHM size can not be less than 0")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidParameter(
            f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path"
        )
    _check_names(config.env or [], host_config)
    _check_ulimits(host_config)
    capability_sets.bounding(host_config.cap_add or [], host_config.cap_drop or [], host_config.privileged)
    options = security.parse(host_config.security_opt or [])
    security.seccomp_profile(options, host_config, ())
    sysctls.check(host_config)
    storage_size(host_config)
    for mapping in host_config.devices or []:
        devices.permissions(mapping)
    for rule in host_config.device_cgroup_rules or []:
        devices.parse_rule(rule)
    for text in (host_config.tmpfs or {}).values():
        mounts.merge_tmpfs_options(text.split(","))
    if host_config.privileged or options.system_paths_unconfined:
        host_config.masked_paths, host_config.readonly_paths = [], []
    if host_config.masked_paths is None:
        host_config.masked_paths = list(masked_paths())
    if host_config.readonly_paths is None:
        host_config.readonly_paths = list(READONLY_PATHS)
    return warnings


def storage_size(host_config: HostConfig) -> int | None:
    """The most bytes that a container's files may take (`--storage-opt size=`); None where nothing is said.

    Raises:
        InvalidParameter: another option, or no size.
    """
    for name, value in (host_config.storage_opt or {}).items():
        if name.lower() != "size":
            raise InvalidParameter(f"--storage-opt: unknown option {name}; size=… is the only one")
        try:
            return parse_size(value)
        except ValueError as error:
            raise InvalidParameter(f"--storage-opt size: {error}") from None
    return None


def _refuse_unsupported(config: ContainerConfig, host_config: HostConfig) -> None:
    offers: tuple[tuple[object, str], ...] = (
        (host_config.device_requests, "device requests (--gpus)"),
        (host_config.cgroup, "the field Cgroup"),
    )
    for given, what in offers:
        if given:
            raise Unsupported(f"{what}: not offered yet")
    if host_config.isolation not in ("", "default"):
        raise InvalidParameter(
            f"Invalid isolation: \"{host_config.isolation}\" - linux only supports 'default'"
        )
    if host_config.userns_mode not in ("", "host"):
        raise InvalidParameter(f"invalid user namespace mode: {host_config.userns_mode}")
    parent = host_config.cgroup_parent
    if parent and ".." in parent.split("/"):
        raise InvalidParameter(f"invalid cgroup parent {parent!r}: it must not contain '..'")


def _check_modes(config: ContainerConfig, host_config: HostConfig) -> None:
    for value, kind, plain, joins in (
        (host_config.ipc_mode, "IPC", ("", "private", "shareable", "host", "none"), True),
        (host_config.pid_mode, "PID", ("", "host"), True),
        (host_config.uts_mode, "UTS", ("", "host"), False),
        (host_config.cgroupns_mode, "cgroup namespace", ("", "private", "host"), False),
    ):
        if value in plain or (joins and value.startswith("container:") and len(value) > len("container:")):
            continue
        raise InvalidParameter(f"invalid {kind} mode: {value}")
    if not host_config.cgroupns_mode:
        host_config.cgroupns_mode = "private"
    mode = host_config.network_mode
    # The engine gives a container on the host's UTS or network namespace the host's own name.
    renamed = config.hostname not in ("", socket.gethostname())
    if host_config.uts_mode == "host" and renamed:
        raise InvalidParameter("conflicting options: hostname and the UTS mode")
    if mode.startswith("container:"):
        for given, what in (
            (host_config.dns, "dns and the network mode"),
            (host_config.extra_hosts, "custom host-to-IP mapping and the network mode"),
            (config.mac_address, "mac-address and the network mode"),
            (host_config.port_bindings, "port publishing and the container type network mode"),
            (host_config.publish_all_ports, "port publishing and the container type network mode"),
        ):
            if given:
                raise InvalidParameter(f"conflicting options: {what}")
    for kind in ("host", "container"):
        if host_config.links and (mode == kind or mode.startswith(f"{kind}:")):
            raise InvalidParameter(
                f"conflicting options: {kind} type network{'ing' if kind == 'host' else ''} can't be used "
                "with links. This would result in undefined behavior"
            )
    if mode == "host" and config.mac_address:
        raise InvalidParameter("conflicting options: mac-address and the network mode")


def _check_names(environment: Iterable[str], host_config: HostConfig) -> None:
    for text in environment:
        if not text or text.startswith("="):
            raise InvalidParameter(f"invalid environment variable: {text}")
        if "\0" in text:
            raise InvalidParameter(f"invalid environment variable: {text.partition('=')[0]}: it contains NUL")
    if "" in (host_config.annotations or {}):
        raise InvalidParameter("invalid Annotations: the empty string is not permitted as an annotation key")


def _check_ulimits(host_config: HostConfig) -> None:
    for limit in host_config.ulimits or []:
        if f"RLIMIT_{limit.name.upper()}" not in NUMBERS or limit.name != limit.name.lower():
            raise InvalidParameter(f"invalid ulimit type: {limit.name}")
        if limit.hard >= 0 and (limit.soft > limit.hard or limit.soft < 0):
            raise InvalidParameter(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )
