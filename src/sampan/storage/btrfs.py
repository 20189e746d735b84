"""The btrfs driver: every layer and every container is a subvolume, a snapshot of what it stands on.

    layers/<hex>/root       everything that the layer shows, with all below it; read-only
    containers/<id>/root

Snapshots share all that was not changed, so nothing is copied, and deleting a subvolume is one call whatever
it holds. What a container changed is found by comparing the two trees, as with vfs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path

from sampan.linux import btrfs, syscalls, trees
from sampan.storage import init_layer
from sampan.storage.base import remove_tree
from sampan.storage.copy_tree import TreeCopy
from sampan.storage.driver import DELETED
from sampan.storage.errors import DriverError
from sampan.storage.limits import Limits
from sampan.storage.tar_reader import Readable
from sampan.storage.unpack import WHITEOUT
from sampan.storage.vfs import Vfs


class Btrfs(Vfs):
    """See `sampan.storage.driver.Driver` for the calls."""

    name = "btrfs"
    size_option = ""

    def __init__(self, home: Path) -> None:
        self._groups: set[int] = set()  # of subvolumes that were destroyed, but are not freed yet
        super().__init__(home)

    def _unpack(self, stage: Path, parent: str | None, stream: Readable, limits: Limits | None) -> int:
        target = stage / "root"
        self._snapshot(parent, target)
        size = self._unpack_into(target, stream, limits)
        btrfs.set_read_only(target)
        return size

    def _snapshot(self, layer_id: str | None, target: Path) -> None:
        if layer_id is None:
            btrfs.create(target)
            target.chmod(0o755)
        else:
            btrfs.snapshot(self.layer_path(layer_id) / "root", target)

    def _fill_container(self, path: Path, parent_layer: str | None, size_bytes: int) -> None:
        root = path / "root"
        self._snapshot(parent_layer, root)
        init_layer.fill(root)
        if size_bytes:
            self._check_image_fits(parent_layer, size_bytes)
            try:
                btrfs.limit(root, size_bytes)
            except OSError as error:
                raise DriverError(
                    f"--storage-opt size: btrfs cannot limit {root}: {error.strerror}"
                ) from error

    def _copy_changes(self, container_id: str, stage: Path) -> int:
        source, root = self.container_path(container_id) / "root", stage / "root"
        parent = self.container_parent(container_id)
        btrfs.snapshot(source, root)
        walk = self._walk_of(root, parent)
        for change in walk.changes():
            place = root / change.path[1:]
            if change.kind == DELETED:
                continue
            if place.name.startswith(WHITEOUT.decode()):
                _remove(place)
            elif place.lstat().st_ino == btrfs.HOLLOW_INODE:
                _copy_subvolume(source, change.path[1:], place)
        init_layer.clear(root, None if parent is None else self.layer_path(parent) / "root")
        size = walk.size()
        btrfs.set_read_only(root)
        return size

    def _delete(self, path: Path) -> None:
        self._groups.update(_destroy(path / self.files))
        remove_tree(path)

    def purge_trash(self) -> None:
        super().purge_trash()
        for number in list(self._groups):
            if btrfs.remove_group(self.home, number):
                self._groups.discard(number)

    def status(self) -> list[tuple[str, str]]:
        return [("Btrfs", "")]


def _copy_subvolume(root: Path, path: str, target: Path) -> None:
    """Put a copy where a snapshot has an empty directory for a subvolume that the container had made.

    The container may change it, and what leads there, meanwhile.
    """
    above = target.parent.stat()
    target.rmdir()
    target.mkdir()
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        plain = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
        source = syscalls.openat2(top, path, os.O_PATH | os.O_DIRECTORY, resolve=plain)
        try:
            TreeCopy(f"/proc/self/fd/{source}/.", str(target), changing=True, skip=WHITEOUT.decode()).run()
        finally:
            os.close(source)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV):
            raise  # else it is gone since
    finally:
        os.close(top)
    os.utime(target.parent, ns=(above.st_atime_ns, above.st_mtime_ns))


def _remove(place: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        above = place.parent.stat()
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()
        os.utime(place.parent, ns=(above.st_atime_ns, above.st_mtime_ns))


def _destroy(place: Path) -> list[int]:
    """Delete a subvolume and those that a container made in it; what is none, or is gone, is left alone.

    Returns:
        the numbers of those that were deleted.
    """
    try:
        return [btrfs.destroy(place)] if btrfs.is_subvolume(place.lstat()) else []
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
    numbers = _destroy_inner(place)
    with contextlib.suppress(FileNotFoundError):
        numbers.append(btrfs.destroy(place))
    return numbers


def _destroy_inner(place: Path) -> list[int]:
    """Delete all subvolumes in a tree, which may be as deep as a container likes; the inmost come first.

    A container may have made them, and the tree itself, read-only: then none in them can be deleted.
    """
    numbers: list[int] = []
    top = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        btrfs.set_writable_in(top, ".")
        left = True
        while left:
            left = False
            for directory, entries, _ in trees.walk(top):
                for entry in entries:
                    try:
                        if entry.is_dir(follow_symlinks=False) and btrfs.is_subvolume(
                            entry.stat(follow_symlinks=False)
                        ):
                            numbers.append(btrfs.destroy_in(directory, entry.name))
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        if error.errno != errno.ENOTEMPTY:
                            raise
                        btrfs.set_writable_in(directory, entry.name)
                        left = True
    finally:
        os.close(top)
    return numbers


def probe(home: Path) -> None:
    """Find out whether `home`, which must exist, lies on btrfs.

    Raises:
        DriverError: it does not.
    """
    if not btrfs.is_btrfs(home):
        raise DriverError(f"btrfs cannot be used in {home}: it does not lie on a btrfs file system")
