"""Local files as the pieces of a tar archive (pax(1)): with links, owners, nanoseconds and capabilities."""

from __future__ import annotations

import os
import stat
import tarfile

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE = 1 << 20
_XATTR = "security.capability"
_KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


def archive_of(path: str, name: str) -> Iterator[bytes]:
    """The file or directory at `path` as an archive in which it is called `name`; sockets are left out."""
    seen: dict[tuple[int, int], str] = {}
    stack = [(path, name)]
    while stack:
        at, inside = stack.pop()
        try:
            info = os.lstat(at)
        except FileNotFoundError:
            if at == path:
                raise
            continue  # gone meanwhile
        yield from member_of(at, inside, info, seen)
        if stat.S_ISDIR(info.st_mode):
            children = sorted(os.listdir(at), reverse=True)
            stack += [(os.path.join(at, child), f"{inside.rstrip('/')}/{child}") for child in children]
    yield bytes(1024)


def member_of(
    at: str,
    name: str,
    info: os.stat_result,
    seen: dict[tuple[int, int], str],
    owner: tuple[int, int] | None = None,
) -> Iterator[bytes]:
    """One file's header and data; for a directory the header alone.

    Args:
        seen: names by device and inode of files with several links; it is added to.
        owner: uid and gid, when they are not to be the file's own.
    """
    kind = _KINDS.get(stat.S_IFMT(info.st_mode))
    if kind is None:
        return
    member = tarfile.TarInfo(name)
    member.type, member.mode = kind, stat.S_IMODE(info.st_mode)
    member.uid, member.gid = owner or (info.st_uid, info.st_gid)
    seconds, fraction = divmod(info.st_mtime_ns, 1_000_000_000)
    member.mtime = seconds
    records: dict[str, str] = {}
    member.pax_headers = records
    if fraction and seconds >= 0:
        records["mtime"] = f"{seconds}.{fraction:09d}"
    if kind == tarfile.SYMTYPE:
        member.linkname = os.readlink(at)
    elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        member.devmajor, member.devminor = os.major(info.st_rdev), os.minor(info.st_rdev)
    if kind != tarfile.DIRTYPE and info.st_nlink > 1:
        first = seen.setdefault((info.st_dev, info.st_ino), name)
        if first != name:
            member.type, member.linkname = tarfile.LNKTYPE, first
            yield _head(member)
            return
    if kind != tarfile.REGTYPE:
        yield _head(member)
        return
    try:
        fd = os.open(at, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise CommandError(f"open {at}: {(error.strerror or '').lower()}") from None
    try:
        try:
            capability = os.getxattr(fd, _XATTR)
            records[f"SCHILY.xattr.{_XATTR}"] = capability.decode("utf-8", "surrogateescape")
        except OSError:
            pass  # it has none, or the file system knows none
        member.size = os.fstat(fd).st_size
        yield _head(member)
        left = member.size
        while left:
            piece = os.read(fd, min(left, PIECE)) or bytes(min(left, PIECE))  # it has become shorter
            left -= len(piece)
            yield piece
        yield bytes(-member.size % 512)
    finally:
        os.close(fd)


def text_member(name: str, text: bytes) -> bytes:
    """A small file that is only a text of ours."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(text), 0o600
    return _head(member) + text + bytes(-len(text) % 512)


def _head(member: tarfile.TarInfo) -> bytes:
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
