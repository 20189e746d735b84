"""Configuration-only networks: `network create --config-only`, and networks made after one (`--config-from`).

Such a network is a record: no bridge, no pool of addresses, nobody in it. Docker's words for what is wrong
(libnetwork's `validateConfiguration` and `NewNetwork`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sampan.errors import Forbidden, InvalidParameter, NotFound
from sampan.network.model import Network, NetworkSpec


def check(spec: NetworkSpec) -> None:
    """Check a network that is to be a configuration, or to be made after one.

    Raises:
        Forbidden: it says what such a one cannot say.
    """
    if spec.config_only and spec.config_from:
        raise Forbidden("a configuration network cannot depend on another configuration network")
    if spec.config_only and (spec.internal or spec.attachable):
        raise Forbidden(
            "configuration network can only contain network specific fields. Network operator fields like "
            "[ ingress | internal | attachable | scope ] are not supported."
        )
    own = (spec.subnet, spec.gateway, spec.ip_range, spec.aux_addresses, spec.more, spec.unused)
    if spec.config_from and any(
        (*own, spec.ipv6, not spec.enable_ipv4, spec.options, spec.labels, spec.ipam_options)
    ):
        raise Forbidden(
            "user specified configurations are not supported if the network depends on a configuration "
            "network"
        )


def completed(spec: NetworkSpec, networks: Iterable[Network]) -> NetworkSpec:
    """What a network is that is made after a configuration: as asked for where it is made after none.

    Raises:
        NotFound: there is no network of this name.
        InvalidParameter: it is no configuration.
    """
    if not spec.config_from:
        return spec
    found = next((one for one in networks if spec.config_from in (one.name, one.id)), None)
    if found is None:
        raise NotFound(f"network {spec.config_from} not found")
    if not found.config_only:
        raise InvalidParameter(f"{spec.config_from} is not a configuration network")
    return replace(
        spec,
        subnet=found.subnet,
        ip_range=found.ip_range,
        gateway=found.gateway,
        aux_addresses=found.aux_addresses,
        enable_ipv4=found.enable_ipv4,
        ipv6=found.ipv6,
        more=found.more,
        unused=found.unused,
        options=found.options,
        labels=found.labels,
        ipam_options=found.ipam_options,
        config_from=found.name,
    )


def refuse_used(network: Network, networks: Iterable[Network]) -> None:
    """Refuse to remove a configuration that networks are made after.

    Raises:
        Forbidden: in Docker's words.
    """
    if network.config_only and any(one.config_from == network.name for one in networks):
        raise Forbidden(f'configuration network "{network.name}" is in use')
