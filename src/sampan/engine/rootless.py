"""What a container cannot have from a daemon without root, refused by name and with the reason.

Limits that want a cgroup are no matter of this module: `spec.limits` discards them with a warning, as with
any kernel that cannot set them.
"""

from __future__ import annotations

from sampan.engine import ports
from sampan.engine.model import ContainerConfig, HostConfig
from sampan.engine.spec.devices import permissions
from sampan.errors import InvalidParameter


def check(config: ContainerConfig, host_config: HostConfig, cgroups: bool) -> None:
    """Refuse what takes the machine's root.

    Args:
        cgroups: whether containers have cgroups.

    Raises:
        InvalidParameter: one of these was asked for.
    """
    if host_config.cgroup_parent and not cgroups:
        raise InvalidParameter(
            f"--cgroup-parent {host_config.cgroup_parent}: this daemon without root "
            "has no cgroups (`info` says why): leave the option away"
        )
    for rule in host_config.device_cgroup_rules or []:
        raise InvalidParameter(
            f"--device-cgroup-rule {rule!r}: a daemon without root cannot set device rules; what the "
            "user may open can be shown with --device"
        )
    for mapping in host_config.devices or []:
        inside = mapping.path_in_container or mapping.path_on_host
        if inside != mapping.path_on_host or set(permissions(mapping)) != set("rwm"):
            raise InvalidParameter(
                f"--device {mapping.path_on_host}: without root a device is the machine's own file: it keeps "
                "its name and permissions"
            )
    if host_config.pid_mode.startswith("container:"):
        raise InvalidParameter(
            f"--pid {host_config.pid_mode}: a daemon without root cannot begin a container in another's PID "
            "namespace; use exec, or --pid host"
        )
    if config.labels.get(ports.LABEL) == "nat":
        raise InvalidParameter(
            f"label {ports.LABEL}=nat: a daemon without root cannot change the machine's firewall: ports are "
            "published by proxy"
        )
