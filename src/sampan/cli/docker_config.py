"""Docker's own `config.json`, shared with the docker command: $DOCKER_CONFIG or ~/.docker.

https://docs.docker.com/reference/cli/docker/#configuration-files . Members that we do not know stay.
"""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def path() -> str:
    """Where the file is, or would be."""
    folder = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return os.path.join(folder, "config.json")


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


def save(config: dict[str, Any]) -> None:
    """Write the file: whole or not at all, readable by its owner alone unless it was readable before.

    Raises:
        CommandError: it cannot be written.
    """
    from sampan.cli.jsontext import pretty

    name = os.path.realpath(path())
    folder = os.path.dirname(name)
    part = f"{name}.{os.getpid()}"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
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
            os.write(fd, pretty(config, "\t").encode("utf-8", "surrogateescape"))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(part, name)
    except OSError as error:
        if os.path.exists(part):
            os.unlink(part)
        raise CommandError(f"saving config file: {name}: {(error.strerror or '').lower()}") from None
