"""Log drivers and their options: what is offered, and the refusal of all else by name, in Docker's words.

Docker's reference: docs.docker.com/engine/logging/drivers, moby daemon/logger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

from sampan.errors import InvalidParameter
from sampan.logdrivers import tags

T = TypeVar("T")

DRIVERS = ("fluentd", "gelf", "journald", "json-file", "local", "syslog")
REMOTE = frozenset(("fluentd", "gelf", "journald", "syslog"))
FACILITIES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp "
    "- - - - local0 local1 local2 local3 local4 local5 local6 local7"
).split()

_ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex", "tag")
_COMMON = ("mode", "max-buffer-size")
_CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
_FILE = ("max-size", "max-file", "compress")
_OWN: dict[str, tuple[str, ...]] = {
    "json-file": (*_FILE, *_ATTRIBUTES),
    "local": _FILE,
    "journald": _ATTRIBUTES,
    "syslog": (
        *_ATTRIBUTES, "syslog-address", "syslog-facility", "syslog-format", "syslog-tls-ca-cert",
        "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify",
    ),
    "gelf": (
        *_ATTRIBUTES, "gelf-address", "gelf-compression-level", "gelf-compression-type",
        "gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay",
    ),
    "fluentd": (
        *_ATTRIBUTES, "fluentd-address", "fluentd-async", "fluentd-async-reconnect-interval",
        "fluentd-buffer-limit", "fluentd-max-retries", "fluentd-request-ack", "fluentd-retry-wait",
        "fluentd-sub-second-precision",
    ),
}  # fmt: skip
DEFAULT_BUFFER = "1m"
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


def check(driver: str, options: Mapping[str, str]) -> None:
    """Refuse a driver or an option that is not offered, or a value that cannot be.

    Raises:
        InvalidParameter: as Docker words it.
    """
    if driver == "none":
        for name in options:
            raise InvalidParameter(f"unknown log opt '{name}' for none log driver")
        return
    mode = options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise InvalidParameter(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidParameter(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        _value(options, "max-buffer-size", binary_size)
    if driver not in DRIVERS:
        raise InvalidParameter(f"logger: no log driver named '{driver}' is registered")
    known = {*_OWN[driver], *_COMMON, *(_CACHE if driver in REMOTE else ())}
    for name in options:
        if name not in known:
            where = "log driver local" if driver == "local" else f"{driver} log driver"
            raise InvalidParameter(f"unknown log opt '{name}' for {where}")
    for name in ("labels-regex", "env-regex"):
        _value(options, name, _pattern)
    tags.check(options.get("tag", ""))
    _CHECKS.get(driver, _check_nothing)(options)
    if driver in REMOTE:
        file_limits(driver, options)
        _value(options, "cache-disabled", boolean)


def _check_nothing(_: Mapping[str, str]) -> None:
    pass


def _check_json_file(options: Mapping[str, str]) -> None:
    file_limits("json-file", options)


def _check_local(options: Mapping[str, str]) -> None:
    file_limits("local", options)


def file_limits(driver: str, options: Mapping[str, str]) -> tuple[int, int, bool]:
    """A log file's size in bytes (0 for no limit), how many there are, and whether old ones are compressed.

    For a remote driver these are the ones of its cache. The size is bounded unless the user says
    `max-size=-1`.

    Raises:
        InvalidParameter: not such values.
    """
    prefix = "cache-" if driver in REMOTE else ""
    json = driver == "json-file"
    size = _value(options, f"{prefix}max-size", lambda text: 0 if text == "-1" else decimal_size(text))
    files = _value(options, f"{prefix}max-file", int)
    compress = _value(options, f"{prefix}compress", boolean)
    if files is not None and files < 1:
        raise InvalidParameter(f"{prefix}max-file cannot be less than 1")
    if size is None:
        size = 20_000_000 if json else 20 * 1024 * 1024
    elif size == 0 and options[f"{prefix}max-size"] != "-1":
        raise InvalidParameter(f"{prefix}max-size must be a positive number")
    files = 5 if files is None else files
    if compress and (files < 2 or not size):
        raise InvalidParameter("compress cannot be true when max-file is less than 2 or max-size is not set")
    if compress is None:
        compress = not json and files > 1 and size > 0
    return size, files, compress


def file_buffer(driver: str, options: Mapping[str, str]) -> int:
    """How many bytes may wait for a log file's disk before output is dropped; 0 when the container waits.

    For a remote driver always 0: its buffer is between the cache and the receiver.
    """
    if driver in REMOTE or options.get("mode") != "non-blocking":
        return 0
    return max(1, binary_size(options.get("max-buffer-size") or DEFAULT_BUFFER))


def _check_syslog(options: Mapping[str, str]) -> None:
    scheme, _, _ = syslog_address(options.get("syslog-address", ""))
    syslog_facility(options.get("syslog-facility", ""))
    if options.get("syslog-format", "") not in ("", "rfc3164", "rfc5424", "rfc5424micro"):
        raise InvalidParameter("Invalid syslog format")
    if scheme != "tcp+tls":
        for name in options:
            if name.startswith("syslog-tls-"):
                raise InvalidParameter(f"log opt '{name}' needs a syslog-address with tcp+tls://")


def syslog_address(text: str) -> tuple[str, str, int]:
    """Scheme, host or path, port of a `syslog-address`; ("", "", 0) for the machine's own syslog.

    Raises:
        InvalidParameter: no such address.
    """
    if not text:
        return "", "", 0
    return _address(text, "syslog-address", ("tcp", "tcp+tls", "udp", "unix", "unixgram"), 514)


def syslog_facility(text: str) -> int:
    """A facility's number.

    Raises:
        InvalidParameter: there is none of that name.
    """
    if not text:
        return FACILITIES.index("daemon")
    if text in FACILITIES and text != "-":
        return FACILITIES.index(text)
    if text.isdecimal() and int(text) <= 23:
        return int(text)
    raise InvalidParameter("invalid syslog facility")


def _check_gelf(options: Mapping[str, str]) -> None:
    scheme, _, _ = gelf_address(options.get("gelf-address", ""))
    for name, allowed in (
        ("gelf-compression-type", ("gzip", "zlib", "none")),
        ("gelf-compression-level", None),
    ):
        if name not in options:
            continue
        value = options[name]
        if scheme == "tcp":
            raise InvalidParameter("compression is only supported on UDP")
        good = value in allowed if allowed else re.fullmatch(r"-1|\d", value)
        if not good:
            raise InvalidParameter(f'unknown value "{value}" for log opt "{name}" for gelf log driver')
    for name in ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"):
        if name in options:
            if scheme != "tcp":
                raise InvalidParameter(f'"{name}" is only valid for TCP')
            if not options[name].isdecimal():
                raise InvalidParameter(f'"{name}" must be a positive integer')


def gelf_address(text: str) -> tuple[str, str, int]:
    """Scheme, host and port of a `gelf-address`.

    Raises:
        InvalidParameter: no such address.
    """
    if not text:
        raise InvalidParameter("gelf-address is a required parameter")
    if not text.startswith(("udp://", "tcp://")):
        if "://" in text:
            raise InvalidParameter("gelf: endpoint needs to be TCP or UDP")
        raise InvalidParameter(f"gelf-address should be in form proto://address, got {text}")
    scheme, host, port = _address(text, "gelf-address", ("udp", "tcp"), 0)
    if not port:
        raise InvalidParameter("gelf: please provide gelf-address as proto://host:port")
    return scheme, host, port


def _check_fluentd(options: Mapping[str, str]) -> None:
    fluentd_address(options.get("fluentd-address", ""))
    for name in ("fluentd-async", "fluentd-request-ack", "fluentd-sub-second-precision"):
        _value(options, name, boolean)
    _value(options, "fluentd-buffer-limit", binary_size)
    _value(options, "fluentd-retry-wait", duration_s)
    name = "fluentd-async-reconnect-interval"
    interval = _value(options, name, duration_s)
    if interval and not 0.1 <= interval <= 10:
        raise InvalidParameter(
            f"invalid value for {name}: value ({options[name]}) must be between 100ms and 10s"
        )
    retries = options.get("fluentd-max-retries", "")
    if retries and not retries.isdecimal():
        raise InvalidParameter(f"invalid value for fluentd-max-retries: {retries!r}")


def fluentd_address(text: str) -> tuple[str, str, int]:
    """Scheme (tcp, tls or unix), host or path, port of a `fluentd-address`.

    Raises:
        InvalidParameter: no such address.
    """
    if not text:
        return "tcp", "127.0.0.1", 24224
    if "://" not in text:
        text = f"tcp://{text}"
    return _address(text, "fluentd-address", ("tcp", "tls", "unix"), 24224)


_CHECKS: dict[str, Callable[[Mapping[str, str]], None]] = {
    "json-file": _check_json_file,
    "local": _check_local,
    "syslog": _check_syslog,
    "gelf": _check_gelf,
    "fluentd": _check_fluentd,
}


# --- values ---


def _address(text: str, name: str, schemes: tuple[str, ...], port: int) -> tuple[str, str, int]:
    scheme, mark, rest = text.partition("://")
    if not mark or scheme not in schemes:
        raise InvalidParameter(f"{name} should be in form proto://address, got {text}")
    if scheme.startswith("unix"):
        if not rest.startswith("/"):
            raise InvalidParameter(f"invalid {name}: {text}: the socket's path must be absolute")
        return scheme, rest, 0
    try:
        parts = urlsplit(f"//{rest}")
        found = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidParameter(f"invalid {name}: {text}: {error}") from None
    if not found[0] or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise InvalidParameter(f"invalid {name}: {text}")
    return scheme, found[0], port if found[1] is None else found[1]


def _value(options: Mapping[str, str], name: str, parse: Callable[[str], T]) -> T | None:
    text = options.get(name, "")
    if not text:
        return None
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidParameter(f"error parsing option {name}: {error}") from None


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None


def boolean(text: str) -> bool:
    """As Go's strconv.ParseBool.

    Raises:
        ValueError: neither true nor false.
    """
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(f"invalid syntax: {text!r} is neither true nor false")


def decimal_size(text: str) -> int:
    """Bytes of a log file's size: `10k` is 10,000, as in Docker."""
    return _size(text, 1000)


def binary_size(text: str) -> int:
    """Bytes of a buffer's size: `10k` is 10,240, as in Docker."""
    return _size(text, 1024)


def _size(text: str, base: int) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgtp]?)i?b?", text.strip().lower())
    if match is None:
        raise ValueError(f"invalid size: '{text}'")
    return int(float(match[1]) * base ** _UNITS[match[2]])


def duration_s(text: str) -> float:
    """Seconds of a duration as Go writes it, such as `1m30s` or `100ms`.

    Raises:
        ValueError: not a duration.
    """
    scale = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    parts = re.findall(r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"invalid duration {text!r}")
    return sum(float(number) * scale[unit] for number, unit in parts)
