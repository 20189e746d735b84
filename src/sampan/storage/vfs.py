"""The vfs driver: full copies. It works on every file system, and costs a copy where overlay2 costs a mount.

layers/<hex>/root       everything that the layer shows, with all below it
containers/<id>/root
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from sampan.errors import InvalidParameter
from sampan.storage import changes, init_layer
from sampan.storage.base import DirectoryDriver
from sampan.storage.copy_tree import TreeCopy
from sampan.storage.driver import Change
from sampan.storage.limits import Limits
from sampan.storage.tar_reader import Member, Readable
from sampan.storage.unpack import WHITEOUT, Unpacker


class RemovingWhiteouts:
    """Whiteouts by taking away what the copy of the lower layers holds; what this layer brought stays."""

    needs_written = True

    def hide(self, unpacker: Unpacker, parent: int, directory: bytes, name: bytes, member: Member) -> None:
        path = directory + b"/" + name if directory else name
        self._clear(unpacker, parent, path, name)

    def hide_all(self, unpacker: Unpacker, parent: int, directory: bytes) -> None:
        for name in os.listdir(parent):
            encoded = os.fsencode(name)
            self._clear(unpacker, parent, directory + b"/" + encoded if directory else encoded, encoded)

    def replaced(self, path: bytes, directory_fd: int) -> None:
        raise AssertionError("nothing is marked as hidden in a full copy")

    def _clear(self, unpacker: Unpacker, parent: int, path: bytes, name: bytes) -> None:
        try:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        below = path + b"/"
        written = unpacker.written or ()
        brought = path in written or any(known.startswith(below) for known in written)
        if not brought:
            unpacker.remove(parent, path, name)
        elif stat.S_ISDIR(info.st_mode):
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            try:
                self.hide_all(unpacker, fd, path)
            finally:
                os.close(fd)


class Vfs(DirectoryDriver):
    """See `sampan.storage.driver.Driver` for the calls."""

    name = "vfs"
    files = "root"
    size_option = "size"

    def _unpack(self, stage: Path, parent: str | None, stream: Readable, limits: Limits | None) -> int:
        target = stage / "root"
        target.mkdir()
        self._copy(parent, target)
        return self._unpack_into(target, stream, limits)

    def _unpack_into(self, target: Path, stream: Readable, limits: Limits | None) -> int:
        root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return Unpacker(root, RemovingWhiteouts(), limits).run(stream)
        finally:
            os.close(root)

    def _copy(self, layer_id: str | None, target: Path) -> None:
        target.chmod(0o755)
        if layer_id is not None:
            TreeCopy(str(self.layer_path(layer_id) / "root"), str(target)).run()

    def _fill_container(self, path: Path, parent_layer: str | None, size_bytes: int) -> None:
        root = path / "root"
        root.mkdir()
        if size_bytes:
            self._check_image_fits(parent_layer, size_bytes)
            self._limit([root], size_bytes)
        self._copy(parent_layer, root)
        init_layer.fill(root)

    def _check_image_fits(self, layer_id: str | None, size_bytes: int) -> None:
        if sum(self.layer_size(known) for known in self.chain(layer_id)) > size_bytes:
            raise InvalidParameter(f"--storage-opt size: the image alone is larger than {size_bytes} bytes")

    def mount(self, container_id: str) -> str:
        self.container_parent(container_id)
        return str(self.container_path(container_id) / "root")

    def mount_layers_ro(self, layer_id: str) -> str:
        """The layer's own directory: nothing but the callers' care keeps it as it is."""
        self._record(layer_id)
        return str(self.layer_path(layer_id) / "root")

    def unmount_layers_ro(self, layer_id: str) -> None:
        pass

    def mounted(self) -> set[str]:
        return set()

    def _walk(self, container_id: str) -> changes.TreeWalk:
        parent = self.container_parent(container_id)
        return self._walk_of(self.container_path(container_id) / "root", parent)

    def _walk_of(self, root: Path, parent: str | None) -> changes.TreeWalk:
        lower = os.fsencode(self.layer_path(parent) / "root") if parent is not None else None
        return changes.TreeWalk(os.fsencode(root), lower)

    def _copy_changes(self, container_id: str, stage: Path) -> int:
        root = stage / "root"
        root.mkdir()
        source = self.container_path(container_id) / "root"
        TreeCopy(str(source), str(root), changing=True, skip=WHITEOUT.decode()).run()
        parent = self.container_parent(container_id)
        init_layer.clear(root, None if parent is None else self.layer_path(parent) / "root")
        return self._walk_of(root, parent).size()

    def write_snapshot(self, stage: Path, parent: str | None, out: BinaryIO) -> None:
        self._walk_of(stage / "root", parent).write_tar(out)

    def changes(self, container_id: str) -> list[Change]:
        return self._walk(container_id).changes()

    def diff_tar(self, container_id: str, out: BinaryIO) -> None:
        self._walk(container_id).write_tar(out)

    def _container_size(self, container_id: str, parent: str | None) -> int:
        return self._walk_of(self.container_path(container_id) / "root", parent).size()

    def status(self) -> list[tuple[str, str]]:
        return []

    def layer_data(self, layer_id: str | None) -> dict[str, str]:
        return {}
