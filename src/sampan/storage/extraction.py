"""An archive's files put into a directory of a living root file system, as `docker cp` does.

Unlike a layer, it meets files that are there already, and a container that may change them at any moment:
names are resolved with the root file system as the root, links in it count, and nothing outside is reachable.
A name that would mean something in a layer (`.wh.…`) is a plain one here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from sampan.storage import tar_reader
from sampan.storage.compression import decompressed
from sampan.storage.errors import InvalidArchive, InvalidLayer
from sampan.storage.limits import Limits
from sampan.storage.tar_reader import Member, Source
from sampan.storage.unpack import Unpacker, normalise

_EVERYTHING = Limits(max_bytes=1 << 62, max_members=1 << 62, min_free_bytes=0)


def extract(
    root: int,
    directory: str,
    stream: tar_reader.Readable,
    *,
    owner: tuple[int, int] | None = None,
    keep_kinds: bool = False,
    devices: bool = True,
    compressed: bool = True,
) -> None:
    """Unpack an archive, compressed or not, into a directory.

    Args:
        root: descriptor of the root directory.
        directory: absolute path beneath it, of an existing directory, without "..".
        stream: the archive; it is read to its end.
        owner: uid and gid of all that is written; None for those that the archive says.
        keep_kinds: refuse to put a file where a directory is, and the other way round.
        devices: whether device nodes may be made.
        compressed: whether the archive may be.

    Raises:
        InvalidArchive: the archive is broken, leaves the directory, or is refused by `keep_kinds`.
        OSError: of the file system (no space, a mount point in the way) or of the stream. The file that was
            being written is taken away again; what came before it stays, as in Docker.
    """
    try:
        plain = decompressed(stream, _EVERYTHING)[1] if compressed else stream
        _Extractor(root, directory, owner, keep_kinds, devices).run(plain)
    except InvalidLayer as error:
        raise InvalidArchive(error.message) from error


class _Extractor(Unpacker):
    def __init__(
        self, root: int, directory: str, owner: tuple[int, int] | None, keep_kinds: bool, devices: bool
    ) -> None:
        super().__init__(root, None, _EVERYTHING)
        self._directory_name = directory.rstrip("/")
        self._prefix = os.fsencode(directory).strip(b"/")
        self._owner = owner
        self._keep_kinds = keep_kinds
        self._devices = devices

    def _member(self, member: Member, source: Source) -> None:
        name = self._inside(member.name)
        if not name:
            source.skip(member.size + -member.size % tar_reader.BLOCK)
            return  # the directory itself stays as it is
        if member.kind == tar_reader.LINK:
            member.link = self._below(self._inside(member.link, f'invalid hardlink "{os.fsdecode(name)}": '))
        member.name = self._below(name)
        if not self._devices and member.kind in (tar_reader.CHARACTER, tar_reader.BLOCK_DEVICE):
            raise InvalidLayer(f'"{os.fsdecode(name)}" is a device, which cannot be here')
        if self._owner is not None:
            member.uid, member.gid = self._owner
        if self._keep_kinds:
            self._check_kind(member)
        super()._member(member, source)

    def _inside(self, name: bytes, what: str = "") -> bytes:
        try:
            return normalise(name)
        except InvalidLayer:
            shown = f'{what}"{os.fsdecode(name)}" is outside of "{self._directory_name or "/"}"'
            raise InvalidLayer(shown if name else f"{what}a member of the archive has no name") from None

    def _below(self, name: bytes) -> bytes:
        return self._prefix + b"/" + name if self._prefix else name

    def _check_kind(self, member: Member) -> None:
        above, _, name = member.name.rpartition(b"/")
        try:
            info = os.stat(name, dir_fd=self._parent(above), follow_symlinks=False)
        except FileNotFoundError:
            return
        there, new = stat.S_ISDIR(info.st_mode), member.kind == tar_reader.DIRECTORY
        if there != new:
            kinds = ("non-directory", "directory")
            raise InvalidLayer(
                f'cannot overwrite {kinds[there]} "/{os.fsdecode(member.name)}" '
                f'with {kinds[new]} "{self._directory_name or "/"}"'
            )

    def _regular(self, parent: int, path: bytes, name: bytes, member: Member, source: Source) -> None:
        try:
            super()._regular(parent, path, name, member, source)
        except BaseException as error:
            if not isinstance(error, OSError) or error.errno not in (errno.EBUSY, errno.EROFS, errno.EISDIR):
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=parent)
            raise

    def _check_space(self, count: int) -> None:
        """The kernel tells when there is none: what is written to may be a volume, or limited otherwise."""
        self._next_check = 1 << 62
