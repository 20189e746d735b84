"""`--sysctl`: only settings that belong to a namespace the container has for itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from sampan.engine.model import HostConfig
from sampan.errors import InvalidParameter
from sampan.linux import userns

_IPC = frozenset(
    f"kernel.{name}"
    for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)
# Safe and useful in a network namespace of one's own: ping without CAP_NET_RAW, low ports for everybody.
_PING, _MOST_GROUPS = "net.ipv4.ping_group_range", 2**31 - 1
_NETWORK_DEFAULTS = {_PING: f"0 {_MOST_GROUPS}", "net.ipv4.ip_unprivileged_port_start": "0"}


def check(host_config: HostConfig) -> None:
    """Refuse what would change the host.

    Raises:
        InvalidParameter: in runc's words.
    """
    for given in host_config.sysctls or {}:
        name = _dotted(given)
        if name in _IPC or name.startswith("fs.mqueue."):
            if host_config.ipc_mode == "host":
                raise InvalidParameter(f'sysctl "{given}" is not allowed in the hosts ipc namespace')
        elif name.startswith("net."):
            if host_config.network_mode == "host":
                raise InvalidParameter(f'sysctl "{given}" not allowed in host network namespace')
        elif name == "kernel.domainname":
            if host_config.uts_mode == "host":
                raise InvalidParameter(f'sysctl "{given}" is not allowed in the hosts uts namespace')
        elif name == "kernel.hostname":
            raise InvalidParameter(
                f'sysctl "{given}" is not allowed as it conflicts with the OCI "hostname" field'
            )
        else:
            raise InvalidParameter(f'sysctl "{given}" is not in a separate kernel namespace')


def _dotted(name: str) -> str:
    """The name with dots as separators: `net/ipv4/conf/eth0.1/x` is sysctl(8)'s other spelling."""
    first = next((character for character in name if character in "./"), ".")
    if first == "/":
        return name.replace(".", "\0").replace("/", ".").replace("\0", "/")
    return name


def container_sysctls(host_config: HostConfig) -> dict[str, str]:
    """OCI `linux.sysctl`: the defaults of a network namespace made for the container, and the user's."""
    own_network = host_config.network_mode != "host" and not host_config.network_mode.startswith("container:")
    defaults: Mapping[str, str] = _network_defaults() if own_network else {}
    return {**defaults, **(host_config.sysctls or {})}


@cache
def _network_defaults() -> dict[str, str]:
    defaults = dict(_NETWORK_DEFAULTS)
    if userns.nested():  # groups that do not exist here cannot be named
        defaults[_PING] = f"0 {userns.highest('gid', _MOST_GROUPS)}"
    return {
        name: value
        for name, value in defaults.items()
        if os.path.exists("/proc/sys/" + name.replace(".", "/"))
    }
