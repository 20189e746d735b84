"""Docker's own `config.json`, shared with the docker command: $DOCKER_CONFIG or ~/.docker.

https://docs.docker.com/reference/cli/docker/#configuration-files . Members that we do not know stay.
"""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def folder() -> str:
    """Where docker's client keeps its files."""
    return os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")


def path() -> str:
    """Where the file is, or would be."""
    return os.path.join(folder(), "config.json")


def load() -> dict[str, Any]:
    """The file's object; empty when there is no file.

    Raises:
        CommandError: it cannot be read, or is no JSON object.
    """
    name = path()
    try:
        with open(name, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise CommandError(f"loading config file: {name}: open {name}: {reason}") from None
    if not data.strip():
        return {}
    from sampan.cli.jsontext import parse

    try:
        found = parse(data)
    except ValueError as error:
        raise CommandError(f"loading config file: {name}: {error}") from None
    if not isinstance(found, dict):
        raise CommandError(f"loading config file: {name}: expected a JSON object")
    return found


# What docker insists on; a file in which one has another type counts as none.
_TYPES = {
    **dict.fromkeys(
        ("currentContext", "detachKeys", "imagesFormat", "networksFormat", "psFormat", "statsFormat"), str
    ),
    **dict.fromkeys(("volumesFormat", "credsStore"), str),
    **dict.fromkeys(("HttpHeaders", "aliases", "auths", "credHelpers", "proxies"), dict),
    "pruneFilters": list,
}
_ALIASES = ("builder",)


def settings() -> dict[str, Any]:
    """The file's object for its settings: a file that cannot be used is told of and counts as empty.

    Raises:
        CommandError: an alias that docker does not allow.
    """
    from sampan.cli.app import warn

    try:
        found = load()
    except CommandError as error:
        warn(f"WARNING: Error {error.message}")
        return {}
    for name, kind in _TYPES.items():
        if name in found and found[name] is not None and not isinstance(found[name], kind):
            wanted = {str: "string", dict: "object", list: "array"}[kind]
            warn(f"WARNING: Error parsing config file ({path()}): {name}: expected a JSON {wanted}")
            return {}
    for name in found.get("aliases") or {}:
        if name not in _ALIASES:
            allowed = 'map[string]struct {}{"builder":struct {}{}}'
            raise CommandError(f'not allowed to alias "{name}" (allowed: {allowed})')
    return found


# What the connection itself needs is not the user's to set.
_OURS = ("host", "user-agent", "connection", "upgrade", "content-length", "transfer-encoding", "content-type")


def headers(config: dict[str, Any], listed: str) -> dict[str, str]:
    """The fields that the user adds to each request to the daemon.

    Args:
        listed: of DOCKER_CUSTOM_HEADERS: `name=value` pairs, separated and quoted as CSV. They replace
            those of the file.

    Raises:
        CommandError: a pair without a name or a value, or a line end inside.
    """
    found = {str(name): str(value) for name, value in (config.get("HttpHeaders") or {}).items()}
    if listed:
        import csv

        where = "failed to set custom headers from DOCKER_CUSTOM_HEADERS environment variable"
        wrong = f"Failed to initialize: {where}: "
        found = {}
        for pair in next(csv.reader([listed]), []):
            name, equals, value = pair.partition("=")
            if not equals:
                raise CommandError(f"{wrong}missing \"=\" in key=value pair: '{pair}'")
            if not name.strip():
                raise CommandError(f"{wrong}value contains a key=value pair with an empty key: '{pair}'")
            found[name.strip()] = value
    for name, value in found.items():
        if not name.replace("-", "").replace("_", "").isalnum() or "\n" in value or "\r" in value:
            raise CommandError(f"invalid HTTP header {name!r} in {path()} or DOCKER_CUSTOM_HEADERS")
    return {name: value for name, value in found.items() if name.lower() not in _OURS}


def save(config: dict[str, Any]) -> None:
    """Write the file: whole or not at all, readable by its owner alone unless it was readable before.

    Raises:
        CommandError: it cannot be written.
    """
    from sampan.cli.jsontext import pretty

    name = os.path.realpath(path())
    within = os.path.dirname(name)
    part = f"{name}.{os.getpid()}"
    try:
        os.makedirs(within, mode=0o700, exist_ok=True)
        try:
            before = os.stat(name)
        except FileNotFoundError:
            before = None
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            if before is not None:
                os.fchmod(fd, before.st_mode & 0o777)
                if before.st_uid != os.geteuid() and os.geteuid() == 0:
                    os.fchown(fd, before.st_uid, before.st_gid)
            os.write(fd, pretty({"auths": {}, **config}, "\t").encode("utf-8", "surrogateescape"))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(part, name)
    except OSError as error:
        if os.path.exists(part):
            os.unlink(part)
        raise CommandError(f"saving config file: {name}: {(error.strerror or '').lower()}") from None
