"""`--network`, and the options that belong to the first network: aliases, addresses, links."""

from __future__ import annotations

from sampan.cli.containers.limits import comma_separated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

_FIELDS = ("name", "alias", "ip", "ip6", "mac-address", "link-local-ip", "driver-opt", "gw-priority")


def parse_network(text: str) -> dict[str, Any]:
    """A network name, or `name=…,alias=…,ip=…`, as fields."""
    if "=" not in text:
        return {"name": text}
    found: dict[str, Any] = {}
    for field in comma_separated(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals:
            raise ValueError(f"invalid field {field}")
        if key not in _FIELDS:
            raise ValueError(f"invalid field key {key}")
        value = value.strip()
        if key in ("alias", "link-local-ip"):
            found.setdefault(key, []).append(value)
        elif key == "driver-opt":
            name, _, option = value.partition("=")
            found.setdefault(key, {})[name.lower()] = option
        elif key == "gw-priority":
            try:
                found[key] = int(value)
            except ValueError:
                raise ValueError(f"invalid gw-priority ({value}): value must be an integer") from None
        else:
            found[key] = value
    return found


def networking(values: Values) -> tuple[str, dict[str, Any]]:
    """The network mode and the endpoint settings that the flags ask for.

    Raises:
        ValueError: options that exclude each other, in docker's words.
    """
    chosen = [parse_network(one) for one in [*values.items("network"), *values.items("net")]]
    mode = chosen[0].get("name", "") if chosen else "default"
    first: dict[str, Any] = chosen[0] if chosen else {"name": "default"}
    for name in ("ip", "ip6", "mac-address"):
        if values.text(name):
            if name in first:
                raise ValueError(
                    f"conflicting options: cannot specify both --{name} and per-network "
                    + {"ip": "IPv4 address", "ip6": "IPv6 address"}.get(name, "MAC address")
                )
            first[name] = values.text(name)
    lists: tuple[tuple[str, list[str]], ...] = (
        ("alias", [*values.items("network-alias"), *values.items("net-alias")]),
        ("link-local-ip", values.items("link-local-ip")),
        ("link", values.items("link")),
    )
    for key, items in lists:
        if items:
            if key in first:
                raise ValueError(
                    f"conflicting options: cannot specify both --network-{key} and per-network {key}"
                )
            first[key] = items
    if len(chosen) > 1:
        special = [one["name"] for one in chosen if one.get("name") in ("host", "none")]
        if special:
            raise ValueError(
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
            )
    endpoints: dict[str, Any] = {}
    for one in chosen or [first]:
        name = one.get("name", "default")
        if name in endpoints:
            raise ValueError(f'network "{name}" is specified multiple times')
        settings = _endpoint(one)
        if settings or len(chosen) > 1 or chosen:
            endpoints[name] = settings
    if mode.startswith("container:"):
        endpoints = {name: settings for name, settings in endpoints.items() if settings}
    return mode, endpoints


def _endpoint(fields: dict[str, Any]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    addresses: dict[str, Any] = {}
    if fields.get("ip"):
        addresses["IPv4Address"] = fields["ip"]
    if fields.get("ip6"):
        addresses["IPv6Address"] = fields["ip6"]
    if fields.get("link-local-ip"):
        addresses["LinkLocalIPs"] = fields["link-local-ip"]
    if addresses:
        settings["IPAMConfig"] = addresses
    for key, name in (
        ("alias", "Aliases"),
        ("link", "Links"),
        ("mac-address", "MacAddress"),
        ("driver-opt", "DriverOpts"),
        ("gw-priority", "GwPriority"),
    ):
        if fields.get(key):
            settings[name] = fields[key]
    return settings
