"""`docker cp` and `docker diff`: files into and out of a container, running or not, and what it has changed.

As in Docker the container's file system is opened with the volumes, binds and files that it is started with,
and without what the kernel shows in it (/proc, /sys, /dev). Other than in Docker a running container's tmpfs
mounts are there too, the very ones that its processes see.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sampan.dataclasses import dataclass
from sampan.engine.core import Core, Live, check_not_removing, in_thread
from sampan.engine.metrics import timed
from sampan.engine.model import MountPoint
from sampan.engine.mountpoints import tmpfs_points
from sampan.engine.sources import Sources
from sampan.engine.spec.mounts import mappings_of
from sampan.engine.spec.users import lookup_user
from sampan.errors import InvalidParameter, NotFound, SampanError, Unsupported
from sampan.linux import beneath, idmaps
from sampan.linux.view import Bind, View, tmpfs_of
from sampan.storage import Change, archive_path, extract
from sampan.threads import in_new_thread

_FILES = (("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts"))
# Bits of Go's os.FileMode, which the header is in, by those of stat(2).
_GO_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


# What the file system says, and no fault of ours.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EBUSY, errno.EPERM, errno.EACCES, errno.ENOTEMPTY)


@dataclass(frozen=True, slots=True)
class PathStat:
    """What is at a path of a container's; `mode` is Go's os.FileMode, `target` where a link leads inside."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    target: str


class Opened:
    """A container's file system, held open; `root` is its root's descriptor. Close it in a thread."""

    def __init__(self, core: Core, live: Live) -> None:
        check_not_removing(live)
        self._core = core
        self._id = live.id
        self._lock = threading.Lock()
        self._open = True
        rootfs = core.driver.mount(live.id)
        try:
            with _binds(core, live, rootfs) as binds:
                self.view = View(rootfs, binds, live.container.host_config.readonly_rootfs)
        except BaseException:
            core.driver.unmount(live.id)
            raise
        self.root = self.view.root

    def close(self) -> None:
        """Let go of it; no error the second time."""
        with self._lock:
            was_open, self._open = self._open, False
        if was_open:
            self.view.close()
            self._core.driver.unmount(self._id)


@contextmanager
def _binds(core: Core, live: Live, rootfs: str) -> Iterator[list[Bind]]:
    container = live.container
    host_config = container.host_config
    points = [*container.mounts, *tmpfs_points(host_config)]
    descriptors: list[int] = []
    binds: list[Bind] = []
    sources = Sources(core, container, rootfs)
    try:
        for point in sorted(points, key=lambda point: point.destination.count("/")):
            if point.type == "tmpfs":
                fd = _tmpfs(core, live, point)
                if fd is not None:
                    descriptors.append(fd)
                    binds.append(Bind(fd, point.destination))
                continue
            source = sources.ready(point, owners=False).source
            id_map = _id_map(point, sources)
            if id_map is not None:
                descriptors.append(id_map)
            recursive = "non-recursive" not in point.options
            binds.append(
                Bind(
                    source,
                    point.destination,
                    recursive,
                    readonly=not point.rw,
                    readonly_below=recursive and "ro-non-recursive" not in point.options,
                    id_map=id_map,
                )
            )
        taken = {point.destination for point in points}
        for name, place in _FILES:
            file = core.directory(container.id) / name
            if place not in taken and file.exists():
                binds.append(Bind(str(file), place, readonly=host_config.readonly_rootfs))
        yield binds
    finally:
        sources.close()
        for fd in descriptors:
            os.close(fd)


def _id_map(point: MountPoint, sources: Sources) -> int | None:
    if not point.disk_owner:
        return None
    user = sources.user()
    mappings = mappings_of(point, (user.uid, user.gid))
    if mappings is None:
        return None
    uids, gids = ([(line["containerID"], line["hostID"], line["size"]) for line in each] for each in mappings)
    return idmaps.user_namespace_from_threads(uids, gids)


def _tmpfs(core: Core, live: Live, point: MountPoint) -> int | None:
    pid = live.container.state.pid
    if not live.container.state.running or pid <= 0:
        return None

    def belongs() -> bool:
        try:
            return live.id in Path(f"/proc/{pid}/cgroup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False

    try:
        return tmpfs_of(pid, point.destination, belongs)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise Unsupported(f"copying beside the tmpfs {point.destination} needs Linux 5.2") from None
        raise


def clean(path: str) -> str:
    """The path from the root and without detours; a "/" or "/." at its end, which means a directory, stays.

    Raises:
        InvalidParameter: an empty path, in Docker's words.
    """
    if not path:
        raise InvalidParameter("bad parameter: pathcannot be empty")
    if "\0" in path:
        raise InvalidParameter("the path holds a null character")
    whole = "/" + os.path.normpath("/" + path).lstrip("/")
    if path.rpartition("/")[2] == ".":
        return whole.rstrip("/") + "/."
    return whole.rstrip("/") + "/" if path.endswith("/") else whole


def base(path: str) -> str:
    """The last part of a clean path: "." for "/d/.", "/" for the root."""
    return path.rstrip("/").rpartition("/")[2] or "/"


def stat_path(root: int, path: str) -> PathStat:
    """Look at a clean path, as lstat(2) would inside.

    Raises:
        OSError: there is nothing.
    """
    handle = beneath.open_path(root, path, nofollow_last=True)
    try:
        info = os.fstat(handle)
    finally:
        os.close(handle)
    mode = stat.S_IMODE(info.st_mode) & 0o777 | _GO_KINDS.get(stat.S_IFMT(info.st_mode), 0)
    for bit, go_bit in _GO_BITS:
        if info.st_mode & bit:
            mode |= go_bit
    target = beneath.real_path(root, path) if stat.S_ISLNK(info.st_mode) else ""
    return PathStat(base(path), info.st_size, mode, info.st_mtime_ns, target)


@contextmanager
def _told(path: str, reference: str) -> Iterator[None]:
    """Errors of a path in Docker's words."""
    try:
        yield
    except FileNotFoundError:
        raise NotFound(f"Could not find the file {path} in container {reference}") from None
    except NotADirectoryError:
        raise SampanError(f"lstat {path}: not a directory") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SampanError(f"too many links in {path}") from None
        if error.errno == errno.ENAMETOOLONG:
            raise InvalidParameter(f"lstat {path[:100]}: file name too long") from None
        raise


async def look(core: Core, reference: str, path: str) -> PathStat:
    """What is at a path.

    Raises:
        NotFound: no such container, or nothing there.
        SampanError: the path leads through a file, or in circles.
    """
    live = core.get(reference)
    place = clean(path)

    def work() -> PathStat:
        opened = Opened(core, live)
        try:
            with _told(path, reference):
                return stat_path(opened.root, place)
        finally:
            opened.close()

    return await in_thread(work)


async def reader(
    core: Core, reference: str, path: str
) -> tuple[PathStat, Callable[[BinaryIO], None], Opened]:
    """What is at a path, what writes it as an archive (in a thread), and what the caller closes at the end.

    Raises:
        SampanError: as `look`.
    """
    live = core.get(reference)
    place = clean(path)

    def start() -> tuple[PathStat, Opened]:
        opened = Opened(core, live)
        try:
            with _told(path, reference):
                return stat_path(opened.root, place), opened
        except BaseException:
            opened.close()
            raise

    found, opened = await in_thread(start)

    def write(out: BinaryIO) -> None:
        core.publish(live, "archive-path")
        archive_path(opened.root, place, found.name, out)

    return found, write, opened


async def put(
    core: Core, reference: str, path: str, stream: BinaryIO, copy_owner: bool, keep_kinds: bool
) -> None:
    """Unpack an archive into a directory.

    Args:
        copy_owner: give all files to the user that the container runs as.
        keep_kinds: refuse to replace a directory by a file and the other way round.

    Raises:
        NotFound: no such container, or no such directory.
        InvalidParameter: not a directory, a read-only place, or a broken archive.
        OSError: the file system refuses (it is full, something is mounted there).
    """
    live = core.get(reference)
    place = clean(path)

    def work() -> Opened:
        opened = Opened(core, live)
        try:
            _check_place(live, opened.root, place, path, reference)
            user = live.container.config.user
            owner = lookup_user(opened.root, user) if copy_owner and user else None
            ids = (owner.uid, owner.gid) if owner else None
            target = os.path.normpath(place)
            # In the view's own namespace the kernel keeps mount points from being removed.
            opened.view.run(lambda: extract(opened.root, target, stream, owner=ids, keep_kinds=keep_kinds))
        except BaseException as error:
            opened.close()
            if isinstance(error, OSError) and error.errno in _REFUSALS:
                raise SampanError(error.strerror or str(error)) from error
            raise
        core.publish(live, "extract-to-dir")
        return opened

    opened = await in_new_thread(work, "extract")  # the client may send slowly
    close_later(core, opened)  # unmounting may wait for the disk


def close_later(core: Core, opened: Opened) -> None:
    """Close it in a thread, with nobody waiting."""
    core.spawn(asyncio.ensure_future(in_thread(opened.close)))


def _check_place(live: Live, root: int, place: str, path: str, reference: str) -> None:
    with _told(path, reference):
        handle = beneath.open_path(root, os.path.normpath(place))
    try:
        if not stat.S_ISDIR(os.fstat(handle).st_mode):
            raise InvalidParameter("extraction point is not a directory")
    finally:
        os.close(handle)
    container = live.container
    real = beneath.real_path(root, place)
    points = [*container.mounts, *tmpfs_points(container.host_config)]
    over = [
        point
        for point in points
        if (real == point.destination or real.startswith(point.destination + "/"))
        and (point.type != "tmpfs" or container.state.running)
    ]
    nearest = max(over, key=lambda point: len(point.destination), default=None)
    if nearest is not None and not nearest.rw:
        raise InvalidParameter("mounted volume is marked read-only")
    if nearest is None and container.host_config.readonly_rootfs:
        raise InvalidParameter("container rootfs is marked read-only")


@timed("changes")
async def changes(core: Core, reference: str) -> list[Change]:
    """How a container's files differ from its image's, by path."""
    live = core.get(reference)
    check_not_removing(live)
    return await in_thread(lambda: core.driver.changes(live.id))
