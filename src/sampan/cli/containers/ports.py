"""`-p` and `--expose`: port texts as the API takes them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    try:
        low = int(first)
        high = int(last) if dash else low
    except ValueError:
        raise ValueError(f"invalid {what}: {text}") from None
    if not 0 <= low <= high <= 65535:
        raise ValueError(f"invalid {what}: {text}")
    return low, high


def _protocol(text: str) -> tuple[str, str]:
    port, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash and protocol else "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise ValueError(f"invalid proto: {protocol}")
    return port, protocol


def parse_publish(given: list[str]) -> dict[str, list[dict[str, str]]]:
    """Bindings by `port/protocol`.

    Raises:
        ValueError: no port, or ranges of different lengths.
    """
    bindings: dict[str, list[dict[str, str]]] = {}
    for text in given:
        if "=" in text:
            text = _long_form(text)
        rest, protocol = _protocol(text)
        host, address = "", ""
        before, colon, container = rest.rpartition(":")
        if colon:
            address, _, host = before.rpartition(":") if ":" in before else ("", "", before)
            address = address[1:-1] if address.startswith("[") and address.endswith("]") else address
        if not container:
            raise ValueError(f"no port specified: {text}<empty>")
        if address:
            from sampan.cli.values import is_address

            if not is_address(address):
                raise ValueError(f"invalid IP address: {address}")
        low, high = _range(container, "containerPort")
        if host:
            host_low, host_high = _range(host, "hostPort")
            if host_high - host_low != high - low and high != low:
                raise ValueError(
                    f"invalid ranges specified for container and host Ports: {container} and {host}"
                )
        for offset in range(high - low + 1):
            outer = ""
            if host:
                outer = str(host_low + offset) if high != low or host_low == host_high else host
            bindings.setdefault(f"{low + offset}/{protocol}", []).append(
                {"HostIp": address, "HostPort": outer}
            )
    return bindings


def _long_form(text: str) -> str:
    fields = dict(one.partition("=")[::2] for one in text.split(","))
    wrong = set(fields) - {"published", "target", "protocol", "mode"}
    if wrong:
        raise ValueError(f"invalid field key {sorted(wrong)[0]}")
    if not fields.get("target"):
        raise ValueError(f"invalid publish opts format (should be name=value but got '{text}')")
    published = f"{fields['published']}:" if fields.get("published") else ""
    return f"{published}{fields['target']}/{fields.get('protocol', 'tcp')}"


def _number_error(text: str) -> str:
    """What Go says of a port, or of the first end of a range, that is no number of 16 bits."""
    for part in text.split("-", 1):
        if not part.isdecimal():
            return f'strconv.ParseUint: parsing "{part}": invalid syntax'
        if int(part) > 65535:
            return f'strconv.ParseUint: parsing "{part}": value out of range'
    return ""


def parse_expose(given: list[str]) -> dict[str, Any]:
    """Exposed ports by `port/protocol`."""
    found: dict[str, Any] = {}
    for text in given:
        if ":" in text:
            raise ValueError(f"invalid port format for --expose: {text}")
        port, protocol = _protocol(text)
        try:
            low, high = _range(port, "port")
        except ValueError as error:
            why = _number_error(port) or str(error)
            raise ValueError(f"invalid range format for --expose: {text}, error: {why}") from None
        for number in range(low, high + 1):
            found[f"{number}/{protocol}"] = {}
    return found
