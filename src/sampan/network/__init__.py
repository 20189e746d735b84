"""Networks: bridge, host and none, address pools, the firewall, the files with a container's names."""

from __future__ import annotations

from sampan.network.files import (
    Resolution,
    change_hosts,
    change_resolv_conf,
    own_names,
    plan_resolution,
    resolv_conf,
    write_hostname,
    write_hosts,
    write_resolution,
    write_resolv_conf,
)
from sampan.network.linking import Link
from sampan.network.model import (
    PREDEFINED,
    AddressPool,
    BridgeOptions,
    Endpoint,
    Network,
    NetworkSpec,
    Pool,
    Request,
    Sandbox,
    describe,
)
from sampan.network.names import Member, Names
from sampan.network.policies import Gated, not_at_a_bridge
from sampan.network.ports import Binding, Published
from sampan.network.resolving import Resolving
from sampan.network.sandboxes import check_mac
from sampan.network.service import NetworkService
from sampan.network.settings import has_version

__all__ = [
    "PREDEFINED",
    "AddressPool",
    "Binding",
    "BridgeOptions",
    "Endpoint",
    "Gated",
    "Link",
    "Member",
    "Names",
    "Network",
    "NetworkService",
    "NetworkSpec",
    "Pool",
    "Published",
    "Request",
    "Resolution",
    "Resolving",
    "Sandbox",
    "change_hosts",
    "change_resolv_conf",
    "check_mac",
    "describe",
    "has_version",
    "not_at_a_bridge",
    "own_names",
    "plan_resolution",
    "resolv_conf",
    "write_hostname",
    "write_hosts",
    "write_resolution",
    "write_resolv_conf",
]
