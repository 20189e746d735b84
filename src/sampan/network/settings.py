"""The options of a bridge network: Docker's `com.docker.network.*`, parsed, the rest refused by name.

Names of others, as `com.example.team`, are theirs: they are kept and shown, as in Docker.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
from sampan.network import egress
from sampan.network.model import PREFIX, BridgeOptions, Network
from sampan.network.ports import ANY, Binding

_BRIDGE_NAME = f"{PREFIX}bridge.name"
_ICC = f"{PREFIX}bridge.enable_icc"
_MASQUERADE = f"{PREFIX}bridge.enable_ip_masquerade"
_HOST_BINDING = f"{PREFIX}bridge.host_binding_ipv4"
_INTERFACE_PREFIX = f"{PREFIX}container_iface_prefix"
_GATEWAY_MODES = {4: f"{PREFIX}bridge.gateway_mode_ipv4", 6: f"{PREFIX}bridge.gateway_mode_ipv6"}
_INHIBIT_IPV4 = f"{PREFIX}bridge.inhibit_ipv4"
_MTU = f"{PREFIX}driver.mtu"
NAT, NAT_UNPROTECTED, ROUTED, ISOLATED = GATEWAY_MODES = ("nat", "nat-unprotected", "routed", "isolated")
EGRESS = "sampan.egress"  # ours, not Docker's
_TRUSTED = f"{PREFIX}bridge.trusted_host_interfaces"
_DEFAULT_BRIDGE = f"{PREFIX}bridge.default_bridge"
_SOURCES = {4: f"{PREFIX}host_ipv4", 6: f"{PREFIX}host_ipv6"}
_VERSIONS = {4: f"{PREFIX}enable_ipv4", 6: f"{PREFIX}enable_ipv6"}
_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))  # Go's strconv.ParseBool
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    """How one bridge network is set up.

    Attributes:
        interface: the bridge.
        icc: its containers may reach each other.
        masquerade: what leaves it gets the host's address.
        host_binding: where ports are published that name no address of the host's.
        mtu: bytes.
        prefix: what its interfaces in containers are called, before the number.
        gateway_modes: of IPv4 and of IPv6, each one of `GATEWAY_MODES`.
        inhibit_ipv4: the gateway's IPv4 address is somebody else's to have, and not the bridge's.
        trusted: interfaces of the host's by which published ports are reached at the container's own address.
        egress: the policy of containers in it that have none of their own.
        sources: the host's addresses, of an IP version one at most, that what is masqueraded gets.
    """

    interface: str
    icc: bool = True
    masquerade: bool = True
    host_binding: str = ANY
    mtu: int = 1500
    prefix: str = "eth"
    egress: egress.Policy | None = None
    gateway_modes: tuple[str, str] = (NAT, NAT)
    inhibit_ipv4: bool = False
    trusted: tuple[str, ...] = ()
    sources: tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...] = ()

    def gateway_mode(self, version: int) -> str:
        """How what is of an IP version passes between the network and the world."""
        return self.gateway_modes[0 if version == 4 else 1]


def of_default(options: BridgeOptions) -> BridgeSettings:
    """The default bridge's settings."""
    return BridgeSettings(options.name, options.icc, options.ip_masq, mtu=options.mtu)


def shown(settings: BridgeSettings) -> dict[str, str]:
    """The default bridge's settings as the options that `network inspect` shows."""
    return {
        _DEFAULT_BRIDGE: "true",
        _ICC: str(settings.icc).lower(),
        _MASQUERADE: str(settings.masquerade).lower(),
        _HOST_BINDING: settings.host_binding,
        _BRIDGE_NAME: settings.interface,
        _MTU: str(settings.mtu),
    }


def parse(network: Network) -> BridgeSettings:
    """The settings of a network of the user's.

    Raises:
        InvalidParameter: a value is wrong, or an option is none of a bridge network.
    """
    options = dict(network.options)
    interface = options.pop(_BRIDGE_NAME, "") or f"br-{network.id[:12]}"
    check_interface(_BRIDGE_NAME, interface)
    prefix = options.pop(_INTERFACE_PREFIX, "") or "eth"
    check_interface(_INTERFACE_PREFIX, f"{prefix}000")
    policy = options.pop(EGRESS, "")
    settings = BridgeSettings(
        interface,
        icc=_boolean(options, _ICC),
        masquerade=_boolean(options, _MASQUERADE),
        host_binding=Binding("tcp", 1, options.pop(_HOST_BINDING, "")).address(),
        mtu=check_mtu(options.pop(_MTU, "")),
        prefix=prefix,
        egress=egress.parse(policy) if policy else None,
        gateway_modes=(_gateway_mode(options, 4, network), _gateway_mode(options, 6, network)),
        inhibit_ipv4=_boolean(options, _INHIBIT_IPV4, "false"),
        trusted=tuple(dict.fromkeys(filter(None, options.pop(_TRUSTED, "").split(":")))),
        sources=tuple(_sources(options)),
    )
    for name in settings.trusted:
        check_interface(_TRUSTED, name)
    for name in unknown(options):
        raise InvalidParameter(f"driver option {name!r} is none of the bridge driver's")
    return settings


def has_version(options: dict[str, str], version: int, asked: bool | None) -> bool:
    """Whether a new network is to have an IP version.

    Args:
        options: the driver's, which may say so too; an option that is overruled is taken out of them.
        asked: what the network's maker says in so many words.

    Raises:
        InvalidParameter: the option is neither true nor false.
    """
    if asked is not None:
        options.pop(_VERSIONS[version], None)
        return asked
    text = options.get(_VERSIONS[version], "true" if version == 4 else "false")
    if text not in _TRUE | _FALSE:
        raise InvalidParameter(f'driver-opt "{_VERSIONS[version]}" is not a valid bool')
    return text in _TRUE


def foreign(name: str) -> bool:
    """Whether an option's name is of somebody else's domain."""
    return "." in name and not name.startswith((PREFIX, "sampan."))


def unknown(options: Iterable[str]) -> list[str]:
    """Which of the names that a driver does not know are neither others' nor those of all drivers."""
    return [name for name in options if not foreign(name) and name not in _VERSIONS.values()]


def check_interface(what: str, name: str) -> None:
    """Refuse what cannot be an interface's name.

    Raises:
        InvalidParameter: with the rule.
    """
    if (
        not 0 < len(name.encode()) <= 15
        or name in (".", "..")
        or any(c.isspace() or c in "/:%" for c in name)
    ):
        raise InvalidParameter(
            f"{what}: {name!r} is not an interface name (1 to 15 bytes, no space, /, : or %)"
        )


def _gateway_mode(options: dict[str, str], version: int, network: Network) -> str:
    option = _GATEWAY_MODES[version]
    mode = options.pop(option, "") or NAT
    if mode not in GATEWAY_MODES:
        raise InvalidParameter(f"driver option {option}: {mode!r} must be one of {', '.join(GATEWAY_MODES)}")
    if mode == ISOLATED and not network.internal:
        raise InvalidParameter(
            f"driver option {option}: gateway mode 'isolated' can only be used for an internal network"
        )
    return mode


def _sources(options: dict[str, str]) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    for version, option in _SOURCES.items():
        if text := options.pop(option, ""):
            try:
                address = ipaddress.ip_address(text)
            except ValueError:
                address = None
            if address is None or address.version != version:
                raise InvalidParameter(f"driver option {option}: {text!r} is no IPv{version} address")
            yield address


def _boolean(options: dict[str, str], name: str, default: str = "true") -> bool:
    text = options.pop(name, default)
    if text not in _TRUE | _FALSE:
        raise InvalidParameter(f"driver option {name}: {text!r} must be true or false")
    return text in _TRUE


def check_mtu(text: str, option: str = _MTU) -> int:
    """The number of bytes that an option says; 1500 when it says none.

    Raises:
        InvalidParameter: it is none that can be.
    """
    if not text:
        return 1500
    if not text.isdecimal() or not 68 <= int(text) <= 65535:
        raise InvalidParameter(f"driver option {option}: {text!r} must be a number from 68 to 65535")
    return int(text)
