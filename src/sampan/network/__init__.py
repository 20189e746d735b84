"""Networks: bridge, host and none, address pools, the firewall, the files with a container's names."""

from __future__ import annotations

from sampan.network.files import write_hostname, write_hosts, write_resolv_conf
from sampan.network.model import BridgeOptions, Endpoint, Network, Sandbox, describe
from sampan.network.names import Member, Names
from sampan.network.ports import Binding, Published
from sampan.network.service import NetworkService, check_mac

__all__ = [
    "Binding",
    "BridgeOptions",
    "Endpoint",
    "Member",
    "Names",
    "Network",
    "NetworkService",
    "Published",
    "Sandbox",
    "check_mac",
    "describe",
    "write_hostname",
    "write_hosts",
    "write_resolv_conf",
]
