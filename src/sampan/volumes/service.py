"""Named volumes of the local driver: a directory `<root>/<name>/_data` and a row in the database."""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.database import Database
from sampan.errors import Conflict, InvalidParameter, NotFound, Unsupported
from sampan.volumes.populate import copy_up

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ALLOWED = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS volumes (
    name TEXT PRIMARY KEY, created_ns INTEGER NOT NULL, labels TEXT NOT NULL, populated INTEGER NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as Docker shows it; `created_ns` is nanoseconds since 1970."""

    name: str
    mountpoint: Path
    created_ns: int
    labels: dict[str, str] = field(default_factory=dict)
    driver: str = "local"
    scope: str = "local"

    @property
    def anonymous(self) -> bool:
        """Whether it was made for a container that asked for a volume without a name."""
        return ANONYMOUS_LABEL in self.labels


def describe(volume: Volume) -> dict[str, Any]:
    """The `Volume` object of Docker's API."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(volume.created_ns // 1_000_000_000))
    return {
        "CreatedAt": stamp,
        "Driver": volume.driver,
        "Labels": volume.labels or None,
        "Mountpoint": str(volume.mountpoint),
        "Name": volume.name,
        "Options": None,
        "Scope": volume.scope,
    }


class VolumeService:
    """The volumes of one daemon. Thread-safe.

    Args:
        root: directory of the volumes; made when missing.
        database: where names and labels are kept.
    """

    def __init__(self, root: Path, database: Database) -> None:
        self._root = root
        self._database = database
        root.mkdir(parents=True, exist_ok=True, mode=0o701)
        database.script(_SCHEMA)
        self._purge_trash()

    def create(
        self,
        name: str | None,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume, or return the one of that name that exists.

        Args:
            name: None or "" for an anonymous one: 64 hexadecimal digits, and a label that says so.

        Raises:
            InvalidParameter: for a name that the local driver does not allow.
            Unsupported: for another driver, and for driver options.
        """
        if driver not in ("", "local"):
            raise Unsupported(
                f"create {name or 'volume'}: volume driver {driver!r} is not offered; use local"
            )
        if options:
            raise Unsupported(
                f"create {name or 'volume'}: option {sorted(options)[0]!r} of the local volume driver is not "
                "offered yet"
            )
        given = dict(labels or {})
        if not name:
            name = secrets.token_hex(32)
            given[ANONYMOUS_LABEL] = ""
        _check_name(name)
        directory = self._root / name
        with self._database.transaction():
            with contextlib.suppress(NotFound):
                return self.get(name)
            created_ns = time.time_ns()
            directory.mkdir(mode=0o701, exist_ok=True)
            (directory / "_data").mkdir(mode=0o755, exist_ok=True)
            os.chmod(directory / "_data", 0o755)  # whatever the umask says
            self._database.execute(
                "INSERT INTO volumes VALUES (?, ?, ?, 0)", (name, created_ns, json.dumps(given))
            )
        return Volume(name, directory / "_data", created_ns, given)

    def get(self, name: str) -> Volume:
        """A volume by its name.

        Raises:
            NotFound: when there is none.
        """
        rows = self._database.execute("SELECT name, created_ns, labels FROM volumes WHERE name = ?", (name,))
        if not rows:
            raise NotFound(f"get {name}: no such volume")
        return self._volume(*rows[0])

    def list(
        self, filters: Mapping[str, Sequence[str]] | None = None, used: Iterable[str] = ()
    ) -> list[Volume]:
        """Volumes by name.

        Args:
            filters: Docker's: `name` (a part of it), `label` (`key` or `key=value`, all must match),
                `driver`, `dangling`; several values of another filter are alternatives.
            used: names of the volumes that containers refer to, for `dangling`.

        Raises:
            InvalidParameter: for a filter that does not exist.
        """
        rows = self._database.execute("SELECT name, created_ns, labels FROM volumes ORDER BY name")
        volumes = [self._volume(*row) for row in rows]
        return [volume for volume in volumes if matches(volume, filters or {}, frozenset(used))]

    def mountpoint(self, name: str) -> Path:
        """The directory with a volume's files.

        Raises:
            NotFound: when there is no such volume.
        """
        return self.get(name).mountpoint

    def remove(self, name: str, force: bool = False, in_use: Sequence[str] = ()) -> None:
        """Delete a volume with its files.

        Args:
            force: a volume that does not exist is fine.
            in_use: ids of the containers that refer to it.

        Raises:
            NotFound: when there is none.
            Conflict: when containers refer to it.
        """
        try:
            volume = self.get(name)
        except NotFound:
            if force:
                return
            raise
        if in_use:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(in_use)}]")
        trash = self._root / f".trash-{secrets.token_hex(8)}"
        self._database.execute("DELETE FROM volumes WHERE name = ?", (name,))
        with contextlib.suppress(FileNotFoundError):
            os.rename(volume.mountpoint.parent, trash)
            shutil.rmtree(trash)

    def prune(
        self, used: Iterable[str], filters: Mapping[str, Sequence[str]] | None = None
    ) -> tuple[builtins.list[str], int]:
        """Delete volumes that no container refers to: anonymous ones, or with the filter `all=true` all.

        Returns:
            The names, and how many bytes of files they held.

        Raises:
            InvalidParameter: for a filter that does not exist.
        """
        wanted = dict(filters or {})
        everything = [value.lower() in ("1", "t", "true") for value in wanted.pop("all", ())] == [True]
        removed, freed_bytes = [], 0
        for volume in self.list({**wanted, "dangling": ["true"]}, used):
            if everything or volume.anonymous:
                freed_bytes += size_bytes(volume.mountpoint)
                self.remove(volume.name, force=True)
                removed.append(volume.name)
        return removed, freed_bytes

    def populate(self, name: str, rootfs: str, path: str) -> bool:
        """Copy what the image has at `path` into a volume that is empty and was never filled before.

        Args:
            name: the volume.
            rootfs: the container's mounted root; `path` is resolved inside it, links included.
            path: where the volume will be mounted.

        Returns:
            Whether anything was copied.

        Raises:
            NotFound: when there is no such volume.
            OSError: when copying fails; the volume is left empty.
        """
        rows = self._database.execute("SELECT populated FROM volumes WHERE name = ?", (name,))
        target = self.mountpoint(name)
        if rows[0][0]:
            return False
        with os.scandir(target) as entries:
            empty = next(entries, None) is None
        copied = copy_up(rootfs, path, target) if empty else False
        if copied or not empty:
            self._database.execute("UPDATE volumes SET populated = 1 WHERE name = ?", (name,))
        return copied

    def _volume(self, name: str, created_ns: int, labels: str) -> Volume:
        return Volume(name, self._root / name / "_data", created_ns, json.loads(labels))

    def _purge_trash(self) -> None:
        for leftover in self._root.glob(".trash-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def matches(volume: Volume, filters: Mapping[str, Sequence[str]], used: frozenset[str]) -> bool:
    """Whether a volume passes Docker's filters; see `VolumeService.list`.

    Raises:
        InvalidParameter: for a filter that does not exist, or a `dangling` that is neither true nor false.
    """
    for name, values in filters.items():
        if name == "name":
            passed = any(value == volume.name or _found(value, volume.name) for value in values)
        elif name == "driver":
            passed = volume.driver in values
        elif name == "label":
            passed = all(_has_label(volume, value) for value in values)
        elif name == "label!":
            passed = not all(_has_label(volume, value) for value in values)
        elif name == "dangling":
            passed = (volume.name not in used) == _boolean(name, values)
        else:
            raise InvalidParameter(f"invalid filter '{name}'")
        if not passed:
            return False
    return True


def _has_label(volume: Volume, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in volume.labels and (not equals or volume.labels[key] == value)


def _found(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:
        return False  # as in Docker


def _boolean(name: str, values: Sequence[str]) -> bool:
    truths = [bool({"1", "true"} & set(values)), bool({"0", "false"} & set(values))]
    if truths[0] == truths[1]:
        raise InvalidParameter(f"invalid filter '{name}=[{' '.join(values)}]'")
    return truths[0]


def _check_name(name: str) -> None:
    if len(name) == 1:
        raise InvalidParameter(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if not _NAME.fullmatch(name) or len(name) > 255:
        raise InvalidParameter(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only "{_ALLOWED}" '
            "are allowed. If you intended to pass a host directory, use absolute path"
        )


def size_bytes(directory: Path) -> int:
    """The sum of the sizes of the files under a directory; each counts once, links are not followed."""
    sizes: dict[tuple[int, int], int] = {}
    for parent, directories, files in os.walk(directory):
        for name in (*directories, *files):
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(os.path.join(parent, name))
                if not stat.S_ISDIR(status.st_mode):
                    sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
