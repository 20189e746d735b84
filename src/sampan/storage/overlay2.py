"""The overlay2 driver: one directory for each layer, stacked by the kernel for each container.

    layers/<hex>/diff          a layer's own files; hidden ones are character devices 0:0
    l/<short>                  -> ../layers/<hex>/diff
    init/diff                  lies below every image: the mount points that a container needs
    containers/<id>/{diff,work,merged}

Docker lays a container's mount points between image and container; below the image they are shared by all
containers, since a file of the image hides ours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from sampan.linux import features, syscalls, userns
from sampan.storage import changes, overlay_mount
from sampan.storage.base import DirectoryDriver, LayerRecord, Prepared, remove_tree
from sampan.storage.copy_tree import TreeCopy
from sampan.storage.driver import Change
from sampan.storage.errors import DriverError
from sampan.storage.init_layer import make_init_layer
from sampan.storage.limits import Limits
from sampan.storage.lower_view import OPAQUE_XATTR, XATTR_PREFIX, LowerView, UnknownLower, is_whiteout
from sampan.storage.tar_reader import Member, Readable
from sampan.storage.unpack import WHITEOUT, Unpacker
from sampan.storage.unpack_process import Apart


class OverlayWhiteouts:
    """Whiteouts as the overlay file system has them."""

    needs_written = False

    def __init__(self, lower: LowerView | UnknownLower) -> None:
        self._lower = lower

    def hide(self, unpacker: Unpacker, parent: int, directory: bytes, name: bytes, member: Member) -> None:
        path = directory + b"/" + name if directory else name
        try:
            os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
        except FileExistsError:
            # This layer holds the name itself: it stays, and hides what is below.
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                _mark_opaque(parent, name)
            return
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        unpacker.hidden.add(path)

    def hide_all(self, unpacker: Unpacker, parent: int, directory: bytes) -> None:
        if directory:
            os.setxattr(parent, OPAQUE_XATTR, b"y")
            return
        # The root of an overlay is always merged, so each name is hidden by itself.
        for name in self._lower.names(b""):
            with contextlib.suppress(FileExistsError):
                os.mknod(name, stat.S_IFCHR, 0, dir_fd=parent)
                unpacker.hidden.add(name)
                continue
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                _mark_opaque(parent, name)

    def replaced(self, path: bytes, directory_fd: int) -> None:
        os.setxattr(directory_fd, OPAQUE_XATTR, b"y")


def _mark_opaque(parent: int, name: bytes) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        os.setxattr(fd, OPAQUE_XATTR, b"y")
    finally:
        os.close(fd)


class Overlay2(DirectoryDriver):
    """See the module's description, and `sampan.storage.driver.Driver` for the calls."""

    name = "overlay2"
    files = "diff"
    unpacks_alone = True
    size_option = "overlay2.size"
    marks = b""  # the beginning of names that stand for no file in a container's directory

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        home = self.home
        (home / "l").mkdir(exist_ok=True)
        (home / "ro").mkdir(exist_ok=True)
        make_init_layer(home / "init")
        self._references: dict[str, int] = {}
        self._locks: dict[str, threading.Lock] = {}
        for point in overlay_mount.mount_points(home / "ro"):
            detach(Path(point))
        for left in (home / "ro").iterdir():
            with contextlib.suppress(OSError):
                left.rmdir()
        for container_id in self.mounted():
            if self._alive(self.container_path(container_id) / "merged"):
                self._references[container_id] = 1

    # --- layers ---

    def _unpack(self, stage: Path, parent: str | None, stream: Readable, limits: Limits | None) -> int:
        return self._unpack_over(self._view(parent), stage, stream, limits)

    def prepare_ahead(self, stream: Readable | Apart) -> Prepared:
        return self._stage(None, lambda stage: self._unpack_over(UnknownLower(), stage, stream, None))

    def _unpack_over(
        self, lower: LowerView | UnknownLower, stage: Path, stream: Readable | Apart, limits: Limits | None
    ) -> int:
        diff = stage / "diff"
        diff.mkdir()
        diff.chmod(0o755)
        root = os.open(diff, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if isinstance(stream, Apart):
                return stream.unpack(root)
            return Unpacker(root, OverlayWhiteouts(lower), limits, lower.lookup).run(stream)
        finally:
            os.close(root)

    def _committed(self, layer_id: str) -> str:
        link = secrets.token_hex(4)
        os.symlink(f"../layers/{layer_id[7:]}/diff", self.home / "l" / link)
        return link

    def forget_layer(self, layer_id: str) -> None:
        with self._lock:
            record = self._records.get(layer_id)
            super().forget_layer(layer_id)
            if record is not None:
                (self.home / "l" / record.link).unlink(missing_ok=True)

    def _layer_problem(self, layer_id: str, record: LayerRecord) -> str:
        problem = super()._layer_problem(layer_id, record)
        if problem:
            return problem
        link = self.home / "l" / record.link
        expected = f"../layers/{layer_id[7:]}/diff"
        try:
            return "" if os.readlink(link) == expected else f"its short link {link} leads elsewhere"
        except OSError:
            return f"its short link {link} is gone"

    def stray(self, containers: set[str]) -> list[Path]:
        with self._lock:
            links = {record.link for record in self._records.values()}
            found = [path for path in (self.home / "l").iterdir() if path.name not in links]
        return found + super().stray(containers)

    def _view(self, layer_id: str | None) -> LowerView:
        return LowerView([os.fsencode(self.layer_path(known) / "diff") for known in self.chain(layer_id)])

    def _stack(self, layer_id: str | None) -> tuple[list[str], list[str]]:
        chain = self.chain(layer_id)
        lowers = [f"layers/{known[7:]}/diff" for known in chain] + ["init/diff"]
        return lowers, [f"l/{self._record(known).link}" for known in chain] + ["init/diff"]

    # --- containers ---

    def _fill_container(self, path: Path, parent_layer: str | None, size_bytes: int) -> None:
        for name, mode in (("diff", 0o755), ("work", 0o700), ("merged", 0o700)):
            (path / name).mkdir()
            (path / name).chmod(mode)
        if size_bytes:
            self._limit([path / "diff", path / "work"], size_bytes)

    def _mount(self, lowers: list[str], links: list[str], target: Path, upper: Path | None) -> None:
        """Mount layers, given relative to the home, and a container's directory on them if there is one."""
        overlay_mount.mount_overlay(self.home, lowers, links, target, upper)

    def _alive(self, point: Path) -> bool:
        """Whether what is mounted there works; if it does not, it is taken away."""
        return True

    def _lock_of(self, key: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(key, threading.Lock())

    def mount(self, container_id: str) -> str:
        path = self.container_path(container_id)
        merged = path / "merged"
        with self._lock_of(container_id):
            count = self._references.get(container_id, 0)
            if not count or not self._alive(merged):
                lowers, links = self._stack(self.container_parent(container_id))
                self._mount(lowers, links, merged, path / "diff")
            self._references[container_id] = count + 1
        return str(merged)

    def unmount(self, container_id: str) -> None:
        with self._lock_of(container_id):
            left = self._references.get(container_id, 0) - 1
            if left > 0:
                self._references[container_id] = left
            else:
                self._references.pop(container_id, None)
                detach(self.container_path(container_id) / "merged")

    def _force_unmount(self, container_id: str) -> None:
        with self._lock_of(container_id):
            self._references.pop(container_id, None)
            detach(self.container_path(container_id) / "merged")
        with self._lock:
            self._locks.pop(container_id, None)

    def mount_layers_ro(self, layer_id: str) -> str:
        target = self.home / "ro" / layer_id[7:]
        with self._lock_of(layer_id):
            count = self._references.get(layer_id, 0)
            if not count or not self._alive(target):
                lowers, links = self._stack(layer_id)
                # Two directories it must be, without an upper one; what only containers have is not shown.
                lowers[-1] = links[-1] = "none"
                (self.home / "none").mkdir(exist_ok=True)
                target.mkdir(exist_ok=True)
                self._mount(lowers, links, target, None)
            self._references[layer_id] = count + 1
        return str(target)

    def unmount_layers_ro(self, layer_id: str) -> None:
        target = self.home / "ro" / layer_id[7:]
        with self._lock_of(layer_id):
            left = self._references.get(layer_id, 0) - 1
            if left > 0:
                self._references[layer_id] = left
                return
            self._references.pop(layer_id, None)
            detach(target)
            with contextlib.suppress(FileNotFoundError):
                target.rmdir()

    def used_layers(self) -> set[str]:
        viewed = {key for key in list(self._references) if key.startswith("sha256:")}
        return super().used_layers() | viewed

    def mounted(self) -> set[str]:
        containers = self.home / "containers"
        depth = len(containers.parts)
        return {Path(point).parts[depth] for point in overlay_mount.mount_points(containers)}

    def _change_walk(self, container_id: str) -> changes.UpperWalk:
        parent = self.container_parent(container_id)
        view = LowerView([os.fsencode(self.home / lower) for lower in self._stack(parent)[0]])
        return changes.UpperWalk(os.fsencode(self.container_path(container_id) / "diff"), view, self.marks)

    def changes(self, container_id: str) -> list[Change]:
        return self._change_walk(container_id).changes()

    def diff_tar(self, container_id: str, out: BinaryIO) -> None:
        self._change_walk(container_id).write_tar(out)

    def _copy_changes(self, container_id: str, stage: Path) -> int:
        target = stage / "diff"
        target.mkdir()
        upper = self.container_path(container_id) / "diff"
        TreeCopy(str(upper), str(target), True, _is_of_the_layer, WHITEOUT.decode()).run()
        return changes.tree_size(os.fsencode(target))

    def write_snapshot(self, stage: Path, parent: str | None, out: BinaryIO) -> None:
        changes.write_upper(os.fsencode(stage / "diff"), out)

    def _container_size(self, container_id: str, parent: str | None) -> int:
        return changes.tree_size(os.fsencode(self.container_path(container_id) / "diff"))

    def status(self) -> list[tuple[str, str]]:
        return [
            ("Backing Filesystem", backing_file_system(self.home)),
            ("Supports d_type", "true"),
            ("Using metacopy", "false"),
            ("Native Overlay Diff", "true"),
            ("userxattr", str(userns.nested()).lower()),
        ]

    def _graph_data(self, container_id: str, parent: str | None) -> dict[str, str]:
        path = self.container_path(container_id)
        lowers, _ = self._stack(parent)
        return {
            "LowerDir": ":".join(str(self.home / lower) for lower in lowers),
            "MergedDir": str(path / "merged"),
            "UpperDir": str(path / "diff"),
            "WorkDir": str(path / "work"),
        }

    def layer_data(self, layer_id: str | None) -> dict[str, str]:
        if layer_id is None or not self.has_layer(layer_id):
            return {}
        path = self.layer_path(layer_id)
        below = [str(self.layer_path(known) / "diff") for known in self.chain(layer_id)[1:]]
        return {
            **({"LowerDir": ":".join(below)} if below else {}),
            "MergedDir": str(path / "merged"),
            "UpperDir": str(path / "diff"),
            "WorkDir": str(path / "work"),
        }


def _is_of_the_layer(xattr: str) -> bool:
    """Whether an attribute belongs to a file, or says that it is opaque; others steer one overlay alone."""
    return xattr == OPAQUE_XATTR or not xattr.startswith(XATTR_PREFIX)


def detach(point: Path) -> None:
    """Take all mounts at a place away, busy or not; none there is no error.

    There are two when a daemon died while the program of fuse-overlayfs was still about to mount, and the
    next one, which saw none, had it mounted again.
    """
    try:
        while True:
            syscalls.umount2(str(point), syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # not mounted; not there
            raise


def backing_file_system(path: Path) -> str:
    """The type of the file system that holds `path`, as the mount table names it."""
    best, kind = "", "unknown"
    real = os.path.realpath(path)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, tail = line.partition(" - ")
            point = fields.split(" ")[4]
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, tail.split(" ")[0]
    return "extfs" if kind in ("ext2", "ext3", "ext4") else kind


Mount = Callable[[Path, list[str], Path, Path], None]


def probe(home: Path, name: str = "overlay2", mount: Mount | None = None) -> None:
    """Find out by doing whether overlays work in `home`, which must exist.

    Args:
        name: the driver that asks.
        mount: called with a directory, names of layers in it, a mount point and the writable directory.

    Raises:
        DriverError: they do not, and why.
    """
    where = f"{name} cannot be used in {home}"
    trial = Path(tempfile.mkdtemp(prefix=".probe-", dir=home))
    merged = trial / "merged"
    try:
        for directory in ("lower", "lower2", "diff", "work", "merged"):
            (trial / directory).mkdir()
        (trial / "lower" / "gone").touch()
        with os.scandir(trial) as entries:
            if not all(_knows_type(entry) for entry in entries):
                raise DriverError(f"{where}: its file system does not tell file types (d_type; XFS: ftype=1)")
        try:
            os.setxattr(trial / "diff", f"{XATTR_PREFIX}probe", b"y")
        except OSError as error:
            raise DriverError(f"{where}: no {XATTR_PREFIX}* attributes: {error.strerror}") from error
        try:
            (mount or _mount_trial)(trial, ["lower", "lower2"], merged, trial / "diff")
        except DriverError as error:
            kind = _backing(home)
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENODEV:
                kind += f"; {features.lacking('overlay')}"
            raise DriverError(f"{where} ({kind}): {error.message}") from (error.__cause__ or error)
        (merged / "gone").unlink()
        if not is_whiteout((trial / "diff" / "gone").lstat()):
            raise DriverError(f"{where} ({_backing(home)}): no whiteouts")
    except OSError as error:
        raise DriverError(f"{where} ({_backing(home)}): {error.strerror}") from error
    finally:
        detach(merged)
        remove_tree(trial)


def _mount_trial(home: Path, lowers: list[str], target: Path, upper: Path) -> None:
    overlay_mount.mount_overlay(home, lowers, lowers, target, upper)


def _backing(home: Path) -> str:
    kind = backing_file_system(home)
    return f"{kind}; an overlay cannot stand on an overlay" if kind == "overlay" else kind


def _knows_type(entry: os.DirEntry[str]) -> bool:
    # Without d_type scandir falls back to a stat, which must then agree with what it says anyway.
    return entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
