"""The volumes of one daemon: a directory `<root>/<name>/_data` and a row in the database for each.

A file `project` beside `_data` holds the number of the project quota of a volume with a size.
Removing renames the directory into a `.trash-…` beside it; `purge_trash` deletes those, so that nobody waits
for many files. What a crash cuts short is set right when the service is made.
"""

from __future__ import annotations

import builtins
import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sampan.database import Database
from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError, Unavailable
from sampan.linux import mounts, quota, trees
from sampan.volumes import mounting
from sampan.volumes.filters import matches
from sampan.volumes.options import check, is_mount, size_bytes
from sampan.volumes.ownership import Translation, translate
from sampan.volumes.populate import copy_tree, empty, open_source
from sampan.volumes.volume import ANONYMOUS_LABEL, Volume, disk_bytes

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_ALLOWED = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS volumes (
    name TEXT PRIMARY KEY, created_ns INTEGER NOT NULL, labels TEXT NOT NULL, populated INTEGER NOT NULL,
    options TEXT NOT NULL DEFAULT '{}'
);
"""
_COLUMNS = "name, created_ns, labels, options"
_UNTOUCHED, _FILLED, _FILLING = 0, 1, 2  # the column `populated`
_TRASH = ".trash-"
_PROJECT = "project"
_SERVERS = 8  # mounts that may wait for a server at a time: half of what the daemon has threads for
_PATIENCE_S = 5.0  # of who wants one beyond that, or the volume that another is just mounting
_log = logging.getLogger("sampan.volumes")


class VolumeService:
    """The volumes of one daemon. Thread-safe.

    Args:
        root: directory of the volumes; made when missing.
        database: where names, labels and options are kept.
    """

    def __init__(self, root: Path, database: Database) -> None:
        root.mkdir(parents=True, exist_ok=True, mode=0o701)
        root = self._root = root.resolve()  # as the mount table names it
        self._database = database
        self._lock = threading.Lock()  # of names and references; nothing under it waits for a disk's content
        self._locks: dict[str, threading.Lock] = {}
        self._servers = threading.BoundedSemaphore(_SERVERS)
        self._references: dict[str, set[str]] = {}
        self._holders: dict[str, set[str]] = {}
        database.script(_SCHEMA)
        if all(row[1] != "options" for row in database.execute("PRAGMA table_info(volumes)")):
            database.execute("ALTER TABLE volumes ADD COLUMN options TEXT NOT NULL DEFAULT '{}'")
        self._repair()

    # --- names ---

    def create(
        self,
        name: str | None,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        container_id: str = "",
    ) -> tuple[Volume, bool]:
        """Make a volume, or find the one of that name that exists, whatever its options and labels.

        Args:
            name: None or "" for an anonymous one: 64 hexadecimal digits, and a label that says so.
            container_id: a container that refers to it from now on.

        Returns:
            the volume, and whether it is new.

        Raises:
            InvalidParameter: for a name, or options, that the local driver does not allow.
            NotFound: for another driver; in Docker's words where it has no such plugin.
        """
        if driver not in ("", "local"):
            raise NotFound(
                f"create {name or 'volume'}: error looking up volume plugin {driver}: "
                f'plugin "{driver}" not found'
            )
        given, wanted = dict(labels or {}), dict(options or {})
        if not name:
            name = secrets.token_hex(32)
            given[ANONYMOUS_LABEL] = ""
        _check_name(name)
        with self._lock:
            try:
                volume, new = self.get(name), False
            except NotFound:
                check(name, wanted)
                volume, new = self._make(name, given, wanted), True
            if container_id:
                self._references.setdefault(name, set()).add(container_id)
        return volume, new

    def _make(self, name: str, labels: dict[str, str], options: dict[str, str]) -> Volume:
        limit_bytes = size_bytes(options)
        if limit_bytes:
            self._check_quotas(name)
        directory = self._root / name
        created_ns = time.time_ns()
        with self._database.transaction():
            directory.mkdir(mode=0o701, exist_ok=True)
            (directory / "_data").mkdir(mode=0o755, exist_ok=True)
            os.chmod(directory / "_data", 0o755)  # whatever the umask says
            self._forget_limit(directory)  # a failure before this may have left one
            if limit_bytes:
                quota.limit([directory / "_data"], limit_bytes, directory / _PROJECT)
            self._write_down(name, created_ns, labels, options, _UNTOUCHED)
        return Volume(name, directory / "_data", created_ns, labels, options)

    def _write_down(
        self, name: str, created_ns: int, labels: dict[str, str], options: dict[str, str], state: int
    ) -> None:
        self._database.execute(
            f"INSERT INTO volumes ({_COLUMNS}, populated) VALUES (?, ?, ?, ?, ?)",
            (name, created_ns, json.dumps(labels), json.dumps(options), state),
        )

    def get(self, name: str) -> Volume:
        """A volume by its name.

        Raises:
            NotFound: when there is none.
        """
        rows = self._database.execute(f"SELECT {_COLUMNS} FROM volumes WHERE name = ?", (name,))
        if not rows:
            raise NotFound(f"get {name}: no such volume")
        return self._volume(*rows[0])

    def list(self, filters: Mapping[str, Sequence[str]] | None = None) -> list[Volume]:
        """Volumes by name.

        Args:
            filters: Docker's, see `sampan.volumes.filters`.

        Raises:
            InvalidParameter: for a filter that does not exist.
        """
        rows = self._database.execute(f"SELECT {_COLUMNS} FROM volumes ORDER BY name")
        volumes = [self._volume(*row) for row in rows]
        with self._lock:
            used = {name for name, containers in self._references.items() if containers}
        return [volume for volume in volumes if matches(volume, filters or {}, volume.name not in used)]

    def remove(self, name: str, force: bool = False, but_for: str = "") -> bool:
        """Forget a volume; its files are `purge_trash`'s.

        Args:
            force: a volume that does not exist is fine.
            but_for: a container whose use of it does not count.

        Returns:
            whether there was one.

        Raises:
            NotFound: when there is none.
            Conflict: when containers refer to it, or somebody has mounted something in it.
        """
        with self._lock:
            try:
                volume = self.get(name)
            except NotFound:
                if force:
                    return False
                raise
            users = sorted(self._references.get(name, set()) - {but_for})
            if users:
                raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
            directory = volume.mountpoint.parent
            if self._holders.get(name) or mounts.points_below(str(directory)):
                raise Conflict(f"remove {name}: volume has active mounts")
            with self._database.transaction(), contextlib.suppress(FileNotFoundError):
                self._database.execute("DELETE FROM volumes WHERE name = ?", (name,))
                directory.rename(self._root / f"{_TRASH}{_digest(name)}-{secrets.token_hex(4)}")
            self._references.pop(name, None)
            self._holders.pop(name, None)
            self._locks.pop(name, None)
        return True

    def prune(self, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[builtins.list[str], int]:
        """Forget volumes that no container refers to: anonymous ones, or with the filter `all=true` all.

        Returns:
            The names, and how many bytes of files they held.

        Raises:
            InvalidParameter: for a filter that does not exist.
        """
        wanted = dict(filters or {})
        everything = [value.lower() in ("1", "t", "true") for value in wanted.pop("all", ())] == [True]
        removed, freed_bytes = [], 0
        for volume in self.list({**wanted, "dangling": ["true"]}):
            if everything or volume.anonymous:
                held_bytes = disk_bytes(volume)
                with contextlib.suppress(Conflict, NotFound):  # somebody has taken it meanwhile
                    self.remove(volume.name)
                    removed.append(volume.name)
                    freed_bytes += held_bytes
        return removed, freed_bytes

    # --- who refers to them ---

    def refer(self, name: str, container_id: str) -> Volume:
        """Let a container refer to a volume, which then stays.

        Raises:
            NotFound: when there is no such volume.
        """
        with self._lock:
            volume = self.get(name)
            self._references.setdefault(name, set()).add(container_id)
        return volume

    def forget(self, container_id: str) -> None:
        """A container is gone: it refers to nothing any more."""
        with self._lock:
            for name in [name for name, users in self._references.items() if container_id in users]:
                self._references[name].discard(container_id)
                if not self._references[name]:
                    del self._references[name]

    def users(self, name: str) -> frozenset[str]:
        """The ids of the containers that refer to a volume."""
        with self._lock:
            return frozenset(self._references.get(name, ()))

    # --- use ---

    def hold(self, name: str, holder: str) -> Path:
        """The directory with a volume's files, mounted if need be until `holder` lets go.

        The kernel gives a server that does not answer minutes, and nothing can hurry it. So that no thread is
        left for others, who comes second waits for a moment alone.

        Raises:
            NotFound: when there is no such volume.
            Unavailable: its server, or those of many other volumes, keep mounts waiting.
            SampanError: it cannot be mounted.
        """
        volume = self.get(name)
        if is_mount(volume.options):
            with self._alone(name, _PATIENCE_S):
                holders = self._holders.setdefault(name, set())
                if not holders:
                    self._mount(volume)
                holders.add(holder)
        return volume.mountpoint

    def _mount(self, volume: Volume) -> None:
        if not self._servers.acquire(timeout=_PATIENCE_S):
            raise Unavailable(
                f"volume {volume.name} cannot be mounted now: {_SERVERS} others are waiting for servers that "
                "do not answer; try again when those have failed"
            )
        try:
            mounting.unmount_below(volume.mountpoint.parent)
            mounting.mount(volume.mountpoint, volume.options)
        finally:
            self._servers.release()

    def let_go(self, holder: str) -> None:
        """Undo every `hold` of a holder; no error when there is none."""
        for name, holders in list(self._holders.items()):
            if holder in holders:
                with self._alone(name):
                    holders.discard(holder)
                    if not holders:
                        mounting.unmount_below(self._root / name)

    def adopt(self, holders: Mapping[str, Iterable[str]]) -> None:
        """At start-up: volumes by the containers that run, and so hold them; other mounts are left-overs."""
        for holder, names in holders.items():
            for name in names:
                with contextlib.suppress(NotFound):
                    if is_mount(self.get(name).options):
                        self._holders.setdefault(name, set()).add(holder)
        for point in reversed(mounts.points_below(str(self._root))):
            name = Path(point).relative_to(self._root).parts[0]
            if not self._holders.get(name):
                mounting.unmount_below(self._root / name)

    def fresh(self, name: str) -> bool:
        """Whether a volume's own directory may have to be filled still.

        Raises:
            NotFound: when there is no such volume.
        """
        return self._state(name) != _FILLED and not is_mount(self.get(name).options)

    def populate(self, name: str, rootfs: str, path: str, owners: Translation | None = None) -> bool:
        """Copy what the image has at `path` into a volume that is empty and was never filled before.

        Args:
            name: the volume, which the caller holds.
            rootfs: the container's mounted root; `path` is resolved inside it, links included.
            path: where the volume will be mounted.
            owners: whose files become whose, in a volume that is not filled yet.

        Returns:
            Whether anything was copied.

        Raises:
            NotFound: when there is no such volume.
            OSError: when copying fails; the volume is left empty, if its files lie here.
        """
        if self._state(name) == _FILLED:
            return False
        target = self._root / name / "_data"
        with self._alone(name):
            if self._state(name) == _FILLED:  # by another container, meanwhile
                return False
            with os.scandir(target) as entries:
                if next(entries, None) is not None:
                    self._mark(name, _FILLED)
                    return False
            source = open_source(rootfs, path)
            if source is None:
                if owners is not None:
                    translate(str(target), owners)
                return False
            try:
                self._mark(name, _FILLING)
                try:
                    copy_tree(source, target)
                except RecursionError:
                    raise SampanError(
                        f"volume {name}: the image's directories at {path} are nested too deep to be copied"
                    ) from None
                if owners is not None:
                    translate(str(target), owners)
                self._mark(name, _FILLED)
            except BaseException:
                if not is_mount(self.get(name).options):  # elsewhere, others may have written meanwhile
                    empty(target)
                self._mark(name, _UNTOUCHED)
                raise
            finally:
                os.close(source)
        return True

    def purge_trash(self) -> None:
        """Delete what was removed. Where something is mounted in it, it stays, and the log says so."""
        for leftover in self._root.glob(f"{_TRASH}*"):
            if mounts.points_below(str(leftover)):
                _log.error("%s is not deleted: something is mounted in it", leftover)
                continue
            try:
                quota.release_recorded(self._root, leftover / _PROJECT)
                trees.remove(leftover)
            except OSError as error:
                _log.error("%s cannot be deleted: %s", leftover, error)

    # --- inside ---

    def _state(self, name: str) -> int:
        rows = self._database.execute("SELECT populated FROM volumes WHERE name = ?", (name,))
        if not rows:
            raise NotFound(f"get {name}: no such volume")
        return int(rows[0][0])

    def _mark(self, name: str, state: int) -> None:
        self._database.execute("UPDATE volumes SET populated = ? WHERE name = ?", (state, name))

    @contextmanager
    def _alone(self, name: str, patience_s: float = -1) -> Iterator[None]:
        with self._lock:
            lock = self._locks.setdefault(name, threading.Lock())
        if not lock.acquire(timeout=patience_s):
            raise Unavailable(
                f"volume {name} is being mounted for another container, and its server has not answered for "
                f"{patience_s:.0f} seconds; try again when that has come to an end"
            )
        try:
            yield
        finally:
            lock.release()

    def _volume(self, name: str, created_ns: int, labels: str, options: str) -> Volume:
        return Volume(name, self._root / name / "_data", created_ns, json.loads(labels), json.loads(options))

    def _repair(self) -> None:
        """After a crash: finish removals and first copies that were cut short; a directory is never lost."""
        rows: dict[str, tuple[Any, ...]] = {
            row[0]: row for row in self._database.execute("SELECT name, populated, options FROM volumes")
        }
        entries = {entry.name for entry in os.scandir(self._root) if entry.is_dir(follow_symlinks=False)}
        going = {name.split("-")[1] for name in entries if name.startswith(_TRASH) and name.count("-") > 1}
        for name, populated, options in rows.values():
            if name not in entries and _digest(name) in going:
                self._database.execute("DELETE FROM volumes WHERE name = ?", (name,))
            elif populated == _FILLING and name in entries:
                if not is_mount(json.loads(options)):  # elsewhere, others may have written by now
                    empty(self._root / name / "_data")
                self._mark(name, _UNTOUCHED)
        for name in entries - set(rows):
            if not _NAME.fullmatch(name):
                continue
            try:  # nothing in it: it was about to be made
                (self._root / name / "_data").rmdir()
                self._forget_limit(self._root / name)
                (self._root / name).rmdir()
            except OSError:
                if (self._root / name / "_data").is_dir():
                    self._write_down(name, time.time_ns(), {}, {}, _FILLED)
                    _log.warning("volume %s was not known any more; it has its name again", name)

    # --- quotas ---

    def _check_quotas(self, name: str) -> None:
        obstacle = quota.obstacle(self._root)
        if obstacle:
            raise InvalidParameter(f"create {name}: quota size requested but no quota support: {obstacle}")

    def _forget_limit(self, directory: Path) -> None:
        quota.release_recorded(self._root, directory / _PROJECT)
        (directory / _PROJECT).unlink(missing_ok=True)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]


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
