"""Networks: bridge, host and none, address pools, the firewall, the files with a container's names."""

from __future__ import annotations

from sampan.network.files import change_hosts, own_names, write_hostname, write_hosts, write_resolv_conf
from sampan.network.model import (
    PREDEFINED,
    AddressPool,
    BridgeOptions,
    Endpoint,
    Network,
    NetworkSpec,
    Request,
    Sandbox,
    describe,
)
from sampan.network.names import Member, Names
from sampan.network.ports import Binding, Published
from sampan.network.sandboxes import check_mac
from sampan.network.service import NetworkService

__all__ = [
    "PREDEFINED",
    "AddressPool",
    "Binding",
    "BridgeOptions",
    "Endpoint",
    "Member",
    "Names",
    "Network",
    "NetworkService",
    "NetworkSpec",
    "Published",
    "Request",
    "Sandbox",
    "change_hosts",
    "check_mac",
    "describe",
    "own_names",
    "write_hostname",
    "write_hosts",
    "write_resolv_conf",
]
