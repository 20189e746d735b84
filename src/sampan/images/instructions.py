"""The Dockerfile instructions that `--change` of import and commit takes, applied to an image's config.

Both forms of each are read: JSON lists, and words as a shell would take them (Dockerfile reference).
"""

from __future__ import annotations

import json
import posixpath
import re
import signal
from collections.abc import Callable

from sampan.errors import InvalidParameter
from sampan.oci.image import Healthcheck, ImageConfig

_DEFAULT_SHELL = ["/bin/sh", "-c"]
_WORD = re.compile(r"""(?:[^\s"'\\]|\\.|"(?:[^"\\]|\\.)*"|'[^']*')+""")
_VARIABLE = re.compile(r"\\(\$)|\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})")
_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def apply_changes(config: ImageConfig, changes: list[str]) -> None:
    """Apply instructions to `config`, in their order.

    Raises:
        InvalidParameter: for an instruction that cannot be a change, or is malformed.
    """
    lines = [line.strip() for change in changes for line in change.splitlines()]
    command_given = False
    for line in lines:
        if line and not line.startswith("#"):
            name = _apply(config, line)
            command_given = command_given or name == "CMD"
            if name == "ENTRYPOINT" and not command_given:
                config.cmd = None  # the old command was the old entrypoint's


def _apply(config: ImageConfig, line: str) -> str:
    keyword, _, rest = line.partition(" ")
    name, rest = keyword.upper(), rest.strip()
    handler = _HANDLERS.get(name)
    if handler is None:
        raise InvalidParameter(f"{name} is not a valid change command")
    if not rest and name not in ("CMD", "ENTRYPOINT"):
        raise InvalidParameter(f"{name} requires at least one argument")
    handler(config, rest)
    return name


def _cmd(config: ImageConfig, rest: str) -> None:
    config.cmd = _command(config, rest)


def _entrypoint(config: ImageConfig, rest: str) -> None:
    config.entrypoint = _command(config, rest)


def _env(config: ImageConfig, rest: str) -> None:
    current = dict(item.partition("=")[::2] for item in config.env or [])
    current.update(_pairs("ENV", _expand(config, rest)))
    config.env = [f"{key}={value}" for key, value in current.items()]


def _label(config: ImageConfig, rest: str) -> None:
    config.labels = {**(config.labels or {}), **dict(_pairs("LABEL", _expand(config, rest)))}


def _expose(config: ImageConfig, rest: str) -> None:
    ports = dict(config.exposed_ports or {})
    for word in _expand(config, rest).split():
        match = _PORT.fullmatch(word)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if match is None or not 0 < first <= last <= 65535:
            raise InvalidParameter(f"invalid containerPort: {word}")
        for port in range(first, last + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}
    config.exposed_ports = ports


def _user(config: ImageConfig, rest: str) -> None:
    config.user = _expand(config, rest)


def _volume(config: ImageConfig, rest: str) -> None:
    paths = _json_list(rest)
    for path in paths if paths is not None else _expand(config, rest).split():
        if not path.strip():
            raise InvalidParameter("VOLUME specified can not be an empty string")
        config.volumes = {**(config.volumes or {}), path: {}}


def _workdir(config: ImageConfig, rest: str) -> None:
    config.working_dir = posixpath.normpath(posixpath.join("/", config.working_dir, _expand(config, rest)))


def _stopsignal(config: ImageConfig, rest: str) -> None:
    value = _expand(config, rest)
    name = value.upper() if value.upper().startswith("SIG") else f"SIG{value.upper()}"
    known = name in signal.Signals.__members__ or re.fullmatch(r"SIGRT(MIN(\+\d+)?|MAX(-\d+)?)", name)
    if not known and not (value.isdigit() and 1 <= int(value) <= 64):
        raise InvalidParameter(f"Invalid signal: {value}")
    config.stop_signal = value


def _onbuild(config: ImageConfig, rest: str) -> None:
    trigger = rest.split(None, 1)[0].upper()
    if trigger == "ONBUILD":
        raise InvalidParameter("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("MAINTAINER", "FROM"):
        raise InvalidParameter(f"{trigger} isn't allowed as an ONBUILD trigger")
    config.on_build = [*(config.on_build or []), rest]


def _shell(config: ImageConfig, rest: str) -> None:
    shell = _json_list(rest)
    if not shell:
        raise InvalidParameter("SHELL requires the arguments to be in JSON form")
    config.shell = shell


def _healthcheck(config: ImageConfig, rest: str) -> None:
    health = Healthcheck()
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        rest = rest.strip()
        key, _, value = flag[2:].partition("=")
        if key in ("interval", "timeout", "start-period", "start-interval"):
            setattr(health, key.replace("-", "_"), _duration(key, value))
        elif key == "retries":
            if not value.isdigit():
                raise InvalidParameter(f"invalid value for --retries: {value!r}")
            health.retries = int(value)
        else:
            raise InvalidParameter(f"unknown flag: {key}")
    kind, _, command = rest.partition(" ")
    command = command.strip()
    if kind.upper() == "NONE" and not command:
        health.test = ["NONE"]
    elif kind.upper() == "CMD" and command:
        words = _json_list(command)
        health.test = ["CMD", *words] if words is not None else ["CMD-SHELL", command]
    else:
        raise InvalidParameter(f"Unknown type {kind!r} in HEALTHCHECK (try CMD)")
    config.healthcheck = health


_HANDLERS: dict[str, Callable[[ImageConfig, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


# --- the parts of an instruction ---


def _json_list(text: str) -> list[str] | None:
    """The texts of a JSON list; None when it is none, which makes it a command for the shell."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def _command(config: ImageConfig, rest: str) -> list[str]:
    words = _json_list(rest)
    if words is not None:
        return words
    return [*(config.shell or _DEFAULT_SHELL), rest] if rest else []


def _pairs(name: str, text: str) -> list[tuple[str, str]]:
    """`key=value key="two words"`, or the older `key all the rest`."""
    words = _WORD.findall(text)
    if "=" not in words[0]:
        key, _, value = text.partition(" ")
        if not value.strip():
            raise InvalidParameter(f"{name} must have two arguments")
        return [(key, _unquote(value.strip()))]
    found = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise InvalidParameter(
                f"Syntax error - can't find = in {word!r}. Must be of the form: name=value"
            )
        if not key:
            raise InvalidParameter(f"{name} names can not be blank")
        found.append((_unquote(key), _unquote(value)))
    return found


def _unquote(text: str) -> str:
    def plain(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[1]
        if match[2] is not None:
            return re.sub(r"\\([\"\\$])", r"\1", match[2])
        return match[3]

    return re.sub(r"""'([^']*)'|"((?:[^"\\]|\\.)*)"|\\(.)""", plain, text)


def _expand(config: ImageConfig, text: str) -> str:
    """Variables of the config's environment, as `$NAME`, `${NAME}`, `${NAME:-word}` and `${NAME:+word}`."""
    environment = dict(item.partition("=")[::2] for item in config.env or [])

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        known = environment.get(match[2] or match[3], "")
        if match[4] == "-":
            return known or match[5]
        if match[4] == "+":
            return match[5] if known else ""
        return known

    return _VARIABLE.sub(value, text)


def _duration(key: str, text: str) -> int:
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise InvalidParameter(f"invalid duration for --{key}: {text!r} (as in 30s, 1m30s)")
    return round(sum(float(number) * _UNITS[unit] for number, unit in parts))
