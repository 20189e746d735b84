"""Reading an archive of images from a stream that cannot seek: its files go to scratch files, hashed."""

from __future__ import annotations

import hashlib
import os
import posixpath
from dataclasses import dataclass
from pathlib import Path

from sampan.images.errors import InvalidArchive
from sampan.oci.image import DOCUMENT_LIMIT_BYTES
from sampan.storage import tar_reader
from sampan.storage.compression import ReadAhead, decompressed
from sampan.storage.errors import InvalidLayer
from sampan.storage.tar_reader import REGULAR, Readable, Source
from sampan.storage.unpack import normalise

FILES_LIMIT = 100_000
MIN_FREE_BYTES = 64 << 20
_LINKS = frozenset((tar_reader.SYMLINK, tar_reader.LINK))


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A file of the archive, in the scratch directory."""

    path: Path
    size: int
    digest: str


class Archive:
    """The files of an archive by name."""

    def __init__(self) -> None:
        self.files: dict[str, ArchiveFile] = {}
        self.links: dict[str, str] = {}

    def find(self, name: str) -> ArchiveFile | None:
        """The file called `name`, through the links that older engines put in for layers that repeat."""
        for _ in range(16):
            name = posixpath.normpath(name)
            if name in self.files:
                return self.files[name]
            target = self.links.get(name)
            if target is None:
                return None
            name = target
        return None

    def get(self, name: str) -> ArchiveFile:
        """The file called `name`.

        Raises:
            InvalidArchive: there is none.
        """
        found = self.find(name)
        if found is None:
            raise InvalidArchive(f"the archive lacks the file {name!r}")
        return found

    def document(self, name: str) -> bytes:
        """A small file whole."""
        file = self.get(name)
        if file.size > DOCUMENT_LIMIT_BYTES:
            raise InvalidArchive(
                f"{name} has {file.size} bytes, more than the limit of {DOCUMENT_LIMIT_BYTES}"
            )
        return file.path.read_bytes()


def read_archive(stream: Readable, scratch: Path) -> Archive:
    """Read a tar stream, compressed or not, to its end.

    Args:
        stream: the archive's bytes.
        scratch: an empty directory of the caller's.

    Raises:
        InvalidArchive, InvalidLayer: it is not an archive, or larger than the disk.
    """
    kind, plain = decompressed(stream)
    if not kind:
        return _read(plain, scratch)
    with ReadAhead(plain) as ahead:
        return _read(ahead, scratch)


def _read(stream: Readable, scratch: Path) -> Archive:
    archive = Archive()
    source = Source(stream)
    count = 0
    for member in tar_reader.members(source):
        count += 1
        if count > FILES_LIMIT:
            raise InvalidArchive(f"the archive has more than {FILES_LIMIT} files")
        name = os.fsdecode(normalise(member.name))
        if member.kind == REGULAR and member.sparse is None:
            archive.files[name] = _spool(source, member.size, scratch / str(count))
            archive.links.pop(name, None)
        elif member.kind in _LINKS:
            target = os.fsdecode(member.link)
            if member.kind == tar_reader.SYMLINK:
                target = posixpath.join(posixpath.dirname(name), target)
            archive.links[name] = target
            archive.files.pop(name, None)
        else:
            source.skip(member.size)
        source.skip(tar_reader.padding(member.size))
    if not count:
        raise InvalidArchive("the archive is empty")
    source.drain()
    return archive


def _spool(source: Source, size: int, path: Path) -> ArchiveFile:
    space = os.statvfs(path.parent)
    if size + MIN_FREE_BYTES > space.f_bavail * space.f_frsize:
        raise InvalidLayer(f"no space for the archive: {space.f_bavail * space.f_frsize} bytes are free")
    digest = hashlib.sha256()
    with path.open("xb", buffering=0) as file:

        def write(part: memoryview) -> None:
            digest.update(part)
            while part:
                part = part[file.write(part) :]

        source.copy(size, write)
    return ArchiveFile(path, size, "sha256:" + digest.hexdigest())
