"""Texts of flags to values, refused in docker's words: sizes, durations, numbers, key=value and the like."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_POWERS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def size(text: str) -> int:
    """Bytes of `512m`, `1.5GiB`, `2g`; -1 is let through where the daemon gives it a meaning."""
    digits = len(text)
    while digits and text[digits - 1] not in "0123456789.":
        digits -= 1
    numeral, suffix = text[:digits], text[digits:].strip().lower()
    if not numeral:
        raise ValueError(f"invalid size: '{text}'")
    try:
        value = float(numeral.strip())
    except ValueError:
        raise ValueError(f"invalid size: '{text}'") from None
    if value < 0:
        raise ValueError(f"invalid size: '{text}'")
    unit = suffix.removesuffix("ib") if len(suffix) == 3 else suffix
    if len(unit) == 2 and unit[1] == "b":
        unit = unit[0]
    if unit not in _POWERS:
        raise ValueError(f"invalid suffix: '{suffix}'")
    return int(value * 1024 ** _POWERS[unit])


def swap_size(text: str) -> int:
    """A size, or -1 for no limit."""
    return -1 if text == "-1" else size(text)


def integer(text: str, low: int = -(2**63), high: int = 2**63 - 1, name: str = "ParseInt") -> int:
    """A decimal (or 0x, 0o, 0b) number as Go reads it."""
    try:
        value = int(text, 0) if text.lstrip("+-") != "0" * len(text.lstrip("+-")) or not text else 0
        if text.strip() != text or "_" in text:
            raise ValueError
    except ValueError:
        octal = text.lstrip("+-")
        if octal.isdigit() and octal.isascii() and not set(octal) & {"8", "9"}:
            value = int(text, 8)
        else:
            raise ValueError(f'strconv.{name}: parsing "{text}": invalid syntax') from None
    if not low <= value <= high:
        raise ValueError(f'strconv.{name}: parsing "{text}": value out of range')
    return value


def duration(text: str) -> int:
    """Nanoseconds of `1h2m3.5s`."""
    from sampan.durations import read

    return read(text)


def cpus(text: str) -> int:
    """Billionths of a processor from a decimal such as 1.5."""
    from fractions import Fraction

    try:
        value = Fraction(text) * 10**9
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if value.denominator != 1:
        raise ValueError("value is too precise")
    return int(value)


def environment(text: str) -> str:
    """NAME=VALUE, or NAME taken from our own environment (left out when it is not set)."""
    import os

    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    if equals:
        return text
    return f"{text}={os.environ[text]}" if text in os.environ else text


def label(text: str) -> str:
    """NAME or NAME=VALUE."""
    if text.startswith("="):
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def tag(text: str) -> str:
    """NAME or NAME:TAG of an image."""
    from sampan.cli.failures import CommandError
    from sampan.cli.reference import split

    try:
        split(text)
    except CommandError as error:
        raise ValueError(error.message) from None
    return text


def stream(text: str) -> str:
    """stdin, stdout or stderr."""
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def extra_host(text: str) -> str:
    """NAME:ADDRESS (or NAME=ADDRESS); `host-gateway` is an address too."""
    name, separator, address = text.partition("=") if "=" in text else text.partition(":")
    if not separator or not name:
        raise ValueError(f'bad format for add-host: "{text}"')
    if address != "host-gateway":
        bare = address[1:-1] if address[:1] == "[" and address[-1:] == "]" else address
        if not is_address(bare):
            raise ValueError(f'invalid IP address in add-host: "{address}"')
        address = bare
    return f"{name}:{address}"


def is_address(text: str) -> bool:
    import _socket

    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, text)
            return True
        except OSError:
            continue
    return False


def address(text: str) -> str:
    """An IPv4 or IPv6 address."""
    if not is_address(text.strip()):
        raise ValueError(f"IP address is not correctly formatted: {text}")
    return text.strip()


def search_domain(text: str) -> str:
    """A domain of --dns-search; `.` asks for none."""
    domain = text.strip()
    if domain in (".", ""):
        return domain
    plain = domain.replace("-", "").replace(".", "").replace("_", "")
    if not plain.isalnum() or len(domain) > 255 or domain.startswith(("-", ".")):
        raise ValueError(f"{text} is not a valid domain")
    return domain


def sysctl(text: str) -> str:
    """A kernel setting that has a namespace: NAME=VALUE."""
    name = text.partition("=")[0]
    allowed = name in (
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ) or name.startswith(("net.", "fs.mqueue."))
    if "=" not in text or not allowed:
        raise ValueError(f"sysctl '{text}' is not allowed")
    return text


def key_value(text: str) -> str:
    """Any NAME or NAME=VALUE."""
    return text


def device_rule(text: str) -> str:
    """A line of the device controller: `c 1:3 rwm`."""
    parts = text.split(" ")
    numbers = parts[1].split(":") if len(parts) == 3 else []
    good = (
        len(numbers) == 2
        and parts[0] in ("a", "b", "c")
        and all(number == "*" or number.isdigit() for number in numbers)
        and 0 < len(parts[2]) <= 3
        and set(parts[2]) <= set("rwm")
    )
    if not good:
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text


def link(text: str) -> str:
    """CONTAINER or CONTAINER:ALIAS."""
    if not text:
        raise ValueError("empty string specified for links")
    if text.count(":") > 1:
        raise ValueError(f"bad format for links: {text}")
    return text


def weight_device(text: str) -> str:
    """PATH:WEIGHT with a weight of 10 to 1000."""
    path, _, number = text.partition(":")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    if not number.isdigit() or (number != "0" and not 10 <= int(number) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return text


def rate_bytes(text: str) -> str:
    """PATH:RATE with a rate in bytes, units allowed."""
    path, _, rate = text.partition(":")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    try:
        size(rate)
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. "
            "Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None
    return text


def rate_count(text: str) -> str:
    """PATH:RATE with a rate in operations a second."""
    path, _, rate = text.partition(":")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    if not rate.isdigit():
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. "
            "Number must be a positive integer"
        )
    return text


def ulimit(text: str) -> str:
    """NAME=SOFT[:HARD]."""
    from sampan.cli.containers.limits import parse_ulimit

    parse_ulimit(text)
    return text


def mount(text: str) -> str:
    """The comma-separated fields of --mount."""
    from sampan.cli.containers.mounts import parse_mount

    parse_mount(text)
    return text


def network(text: str) -> str:
    """A network name, or name=…,alias=…,ip=… fields."""
    from sampan.cli.containers.networks import parse_network

    parse_network(text)
    return text


def gpus(text: str) -> str:
    """all, a count, or driver=…,device=…,capabilities=… fields."""
    from sampan.cli.containers.limits import parse_gpus

    parse_gpus(text)
    return text


def condition(text: str) -> str:
    """NAME=VALUE of --filter."""
    if text and "=" not in text:
        raise ValueError("bad format of filter (expected name=value)")
    return text


def pairs(text: str) -> list[str]:
    """NAME=VALUE pairs as a line of CSV; with one `=` alone, commas are the value's."""
    if "=" not in text:
        raise ValueError(f"{text} must be formatted as key=value")
    if text.count("=") == 1:
        return [text.strip('"')]
    import csv

    found = next(csv.reader([text]), [])
    for one in found:
        if "=" not in one:
            raise ValueError(f"{one} must be formatted as key=value")
    return found


KINDS: dict[str, Callable[[str], Any]] = {
    "int": integer,
    "uint": lambda text: integer(text, 0, 2**64 - 1, "ParseUint"),
    "uint16": lambda text: integer(text, 0, 65535, "ParseUint"),
    "bytes": size,
    "decimal": cpus,
    "duration": duration,
    "map": key_value,
    "filter": condition,
    "ulimit": ulimit,
    "mount": mount,
    "network": network,
    "gpu-request": gpus,
}

CHECKS: dict[str, Callable[[str], Any]] = {
    "address": address,
    "device-rule": device_rule,
    "env": environment,
    "extra-host": extra_host,
    "label": label,
    "link": link,
    "rate-bytes": rate_bytes,
    "rate-count": rate_count,
    "search-domain": search_domain,
    "stream": stream,
    "swap": swap_size,
    "sysctl": sysctl,
    "tag": tag,
    "weight-device": weight_device,
}
