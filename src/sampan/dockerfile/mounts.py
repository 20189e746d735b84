"""`RUN --mount`: what each one says (Dockerfile reference, "RUN --mount")."""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Callable
from dataclasses import replace

from sampan.dataclasses import dataclass
from sampan.dockerfile.parsing import Instruction
from sampan.dockerfile.substitution import Words
from sampan.errors import InvalidParameter
from sampan.oci.quantities import parse_size

BIND, CACHE, TMPFS, SECRET, SSH = "bind", "cache", "tmpfs", "secret", "ssh"
SHARED, PRIVATE, LOCKED = "shared", "private", "locked"
_SECRETS = "/run/secrets"
_COMMON = frozenset(("target", "readonly"))
_KEYS = {
    BIND: _COMMON | {"source", "from"},
    CACHE: _COMMON | {"id", "sharing", "from", "source", "mode", "uid", "gid"},
    TMPFS: _COMMON | {"size"},
    SECRET: _COMMON | {"id", "source", "required", "mode", "uid", "gid", "env"},
    SSH: _COMMON | {"id", "required", "mode", "uid", "gid"},
}
_OTHER_NAMES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}
_SWITCHES = frozenset(("readonly", "readwrite", "rw", "required"))


@dataclass(frozen=True, slots=True)
class RunMount:
    """One `--mount`.

    Attributes:
        type: `bind`, `cache`, `tmpfs`, `secret` or `ssh`.
        target: as it is written, which may be relative to the working directory.
        source: a path in the context, or in what `origin` names.
        origin: the stage or image of `from=`; empty for the context, or for nothing.
        id: of a cache or a secret.
        sharing: of a cache: `shared`, `private` or `locked`.
        size_bytes: of a tmpfs; 0 for no limit of its own.
        required: whether a build without the secret fails.
        mode, uid, gid: of a cache's directory or a secret's file; None where nothing is said.
        env: the variable that a secret is to be; None for none.
    """

    type: str = BIND
    target: str = ""
    source: str = ""
    origin: str = ""
    read_only: bool = True
    id: str = ""
    sharing: str = SHARED
    size_bytes: int = 0
    required: bool = False
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    env: str | None = None

    def text(self) -> str:
        """What it says, for history and so for the cache; a secret's content is not in it."""
        said = [f"type={self.type}"]
        for key, value in (
            ("target", self.target),
            ("from", self.origin),
            ("source", self.source),
            ("id", "" if self.type == CACHE and self.id == posixpath.normpath(self.target) else self.id),
            ("sharing", "" if self.sharing == SHARED else self.sharing),
            ("size", str(self.size_bytes or "")),
            ("mode", "" if self.mode is None else f"{self.mode:04o}"),
            ("uid", "" if self.uid is None else str(self.uid)),
            ("gid", "" if self.gid is None else str(self.gid)),
        ):
            said += [f"{key}={value}"] if value else []
        if self.read_only is (self.type in (CACHE, TMPFS)):
            said.append("ro" if self.read_only else "rw")
        return ",".join([*said, *["required"] * self.required])

    def place(self, working_dir: str) -> str:
        """Where it is mounted, from the root.

        Raises:
            InvalidParameter: that would be the root itself.
        """
        place = "/" + posixpath.normpath(posixpath.join("/", working_dir, self.target)).lstrip("/")
        if place == "/":
            raise InvalidParameter(f'invalid mount target "{self.target or place}"')
        return place


def origins(instruction: Instruction) -> list[str]:
    """The stages or images that a RUN's mounts, or a COPY's `--from`, are of.

    Raises:
        InvalidParameter: a mount is malformed, as far as that can be known before its variables are.
    """
    if instruction.keyword == "COPY":
        return [instruction.flags["from"]] if instruction.flags.get("from") else []
    found = []
    for text in instruction.lists.get("mount", ()):
        for key, _, value in _fields(text):
            if key == "from" and "$" in value:
                raise InvalidParameter(
                    "--mount: from= takes no variables: name a stage by FROM … AS, and that one"
                )
            if key == "from":
                found.append(value)
        if "$" not in text:
            _mount(_fields(text))
    return found


def mounts(instruction: Instruction, words: Words) -> list[RunMount]:
    """The mounts of a RUN, variables replaced.

    Raises:
        InvalidParameter: one is malformed.
    """
    return [
        _mount([(key, equals, words.one(value)) for key, equals, value in _fields(text)])
        for text in instruction.lists.get("mount", ())
    ]


def _fields(text: str) -> list[tuple[str, str, str]]:
    """Keys in small letters with "=" and their values, those without one with two empty texts."""
    rows = list(csv.reader([text]))
    found = []
    for field in rows[0] if rows else []:
        key, equals, value = field.partition("=")
        key = _OTHER_NAMES.get(key.lower(), key.lower())
        if not equals and key not in _SWITCHES:
            raise InvalidParameter(f"--mount: invalid field '{field}' must be a key=value pair")
        found.append((key, equals, value))
    return found


def _mount(fields: list[tuple[str, str, str]]) -> RunMount:
    kind = next((value.lower() for key, _, value in reversed(fields) if key == "type"), BIND)
    if kind not in _KEYS:
        raise InvalidParameter(f'--mount: unsupported mount type "{kind}" (not {", ".join(_KEYS)})')
    found = RunMount(kind, read_only=kind not in (CACHE, TMPFS))
    for key, equals, value in fields:
        if key == "type":
            continue
        if key in ("readwrite", "rw") and "readonly" in _KEYS[kind]:
            found = replace(found, read_only=not _boolean(key, equals, value))
            continue
        if key not in _KEYS[kind]:
            raise InvalidParameter(f"--mount: unexpected key '{key}' for mount type '{kind}'")
        found = _SET[key](found, key, value if equals else "true")
    if kind == SECRET:
        return _secret(found)
    return replace(found, id=found.id or posixpath.normpath(found.target)) if kind == CACHE else found


def _secret(found: RunMount) -> RunMount:
    if found.source and found.id:
        raise InvalidParameter("--mount: both source and id can't be set")
    name = found.id or found.source or (posixpath.basename(found.target) if found.target else "")
    if not name:
        raise InvalidParameter("--mount: invalid secret mount. one of source, target required")
    target = found.target or ("" if found.env is not None else f"{_SECRETS}/{posixpath.basename(name)}")
    return replace(found, id=name, target=target)


def _boolean(key: str, equals: str, value: str) -> bool:
    if not equals or value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidParameter(f"--mount: invalid value for {key}: {value}")


def _number(key: str, value: str, base: int, most: int) -> int:
    if not re.fullmatch("[0-7]{1,10}" if base == 8 else "[0-9]{1,10}", value) or int(value, base) > most:
        raise InvalidParameter(f"--mount: invalid value {value} for {key}")
    return int(value, base)


def _sharing(mount: RunMount, _key: str, value: str) -> RunMount:
    if value.lower() not in (SHARED, PRIVATE, LOCKED):
        raise InvalidParameter(f'--mount: unsupported sharing value "{value}"')
    return replace(mount, sharing=value.lower())


def _size(mount: RunMount, key: str, value: str) -> RunMount:
    try:
        return replace(mount, size_bytes=parse_size(value))
    except ValueError:
        raise InvalidParameter(f"--mount: invalid value for {key}: {value}") from None


_HIGHEST_ID = 2**31 - 1
_SET: dict[str, Callable[[RunMount, str, str], RunMount]] = {
    "target": lambda mount, _key, value: replace(mount, target=value),
    "source": lambda mount, _key, value: replace(mount, source=value),
    "from": lambda mount, _key, value: replace(mount, origin=value),
    "id": lambda mount, _key, value: replace(mount, id=value),
    "env": lambda mount, _key, value: replace(mount, env=value),
    "readonly": lambda mount, key, value: replace(mount, read_only=_boolean(key, "=", value)),
    "required": lambda mount, key, value: replace(mount, required=_boolean(key, "=", value)),
    "mode": lambda mount, key, value: replace(mount, mode=_number(key, value, 8, 0o7777)),
    "uid": lambda mount, key, value: replace(mount, uid=_number(key, value, 10, _HIGHEST_ID)),
    "gid": lambda mount, key, value: replace(mount, gid=_number(key, value, 10, _HIGHEST_ID)),
    "sharing": _sharing,
    "size": _size,
}
