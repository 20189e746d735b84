"""Reading an archive of images from a stream that cannot seek: its files go to scratch files, hashed."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.images.ahead import START_BYTES, LayersAhead
from sampan.images.errors import InvalidArchive
from sampan.images.growing import Growing
from sampan.oci.image import DOCUMENT_LIMIT_BYTES
from sampan.storage import tar_reader
from sampan.storage.compression import ReadAhead, decompressed
from sampan.storage.errors import InvalidLayer
from sampan.storage.tar_reader import REGULAR, Readable, Source
from sampan.storage.unpack import normalise

FILES_LIMIT = 100_000
MIN_FREE_BYTES = 64 << 20
_BLOB = re.compile(r"(?:blobs/sha256/([0-9a-f]{64})|([0-9a-f]{64})\.json)")
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


def claimed_digest(name: str) -> str | None:
    """The digest that the name of an archive's file tells, when it does."""
    match = _BLOB.fullmatch(name)
    return "sha256:" + (match[1] or match[2]) if match is not None else None


def read_archive(stream: Readable, scratch: Path, ahead: LayersAhead) -> Archive:
    """Read a tar stream, compressed or not, to its end.

    Args:
        stream: the archive's bytes.
        scratch: an empty directory of the caller's.
        ahead: unpacks what may be layers meanwhile.

    Raises:
        InvalidArchive, InvalidLayer: it is not an archive, or larger than the disk.
    """
    kind, plain = decompressed(stream)
    if not kind:
        return _read(plain, scratch, ahead)
    with ReadAhead(plain) as unfolded:
        return _read(unfolded, scratch, ahead)


def _read(stream: Readable, scratch: Path, ahead: LayersAhead) -> Archive:
    archive = Archive()
    source = Source(stream)
    count = 0
    for member in tar_reader.members(source):
        count += 1
        if count > FILES_LIMIT:
            raise InvalidArchive(f"the archive has more than {FILES_LIMIT} files")
        name = os.fsdecode(normalise(member.name))
        if member.kind == REGULAR and member.sparse is None:
            archive.files[name] = _spool(source, name, member.size, scratch / str(count), ahead)
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


def _spool(source: Source, name: str, size: int, path: Path, ahead: LayersAhead) -> ArchiveFile:
    if size + MIN_FREE_BYTES > _free_bytes(path) and not (
        ahead.give_up() and size + MIN_FREE_BYTES <= _free_bytes(path)
    ):
        raise InvalidLayer(f"no space for the archive: {_free_bytes(path)} bytes are free")
    digest = hashlib.sha256()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        growing = Growing(fd)

        def write(part: bytes | memoryview) -> None:
            try:
                growing.append(part)
            except OSError as error:
                if error.errno != errno.ENOSPC or not ahead.give_up():
                    raise
                growing.append(part)
            digest.update(part)

        try:
            start = source.exact(min(size, START_BYTES))
            write(start)
            layer = ahead.begin(growing, start, size, claimed_digest(name))
            source.copy(size - len(start), write)
        except Exception as error:
            growing.end(error)
            raise
        growing.end()
    finally:
        os.close(fd)
    found = "sha256:" + digest.hexdigest()
    if layer is not None:
        ahead.arrived(layer, found)
    return ArchiveFile(path, size, found)


def _free_bytes(path: Path) -> int:
    space = os.statvfs(path.parent)
    return space.f_bavail * space.f_frsize
