"""A container's archive to local files, never outside of the directory that it is unpacked in.

The archive is the container's word: directories are entered by descriptor and never through a link, so that
neither a link in the archive nor one that lies there leads elsewhere. Owners stay ours, as with docker.
"""

from __future__ import annotations

import os
import stat
import tarfile

from sampan.cli.copying.places import renamed
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_XATTR = "SCHILY.xattr."


class PieceReader:
    """Pieces as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, b"" at the end."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = piece
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def unpack(pieces: Iterator[bytes], directory: str, old: str, new: str) -> None:
    """Unpack an archive into a directory, its first name `old` as `new`.

    Raises:
        CommandError: the archive would leave the directory, or put a file in a directory's place.
        OSError: of the file system.
    """
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    work = _Unpacking(top, directory, lambda name: renamed(name, old, new))
    try:
        with tarfile.open(fileobj=PieceReader(pieces), mode="r|", bufsize=_PIECE) as archive:  # type: ignore[call-overload]
            for member in archive:
                archive.members = []  # the list would hold every member of the archive
                work.member(archive, member)
        for _ in pieces:
            pass
        work.finish()
    except tarfile.TarError as error:
        raise CommandError(f"the daemon sent a broken archive: {error}") from None
    finally:
        work.close()
        os.close(top)


class _Unpacking:
    def __init__(self, top: int, shown: str, rename: Callable[[str], str]) -> None:
        self._top = top
        self._shown = shown
        self._rename = rename
        self._parent: tuple[tuple[str, ...], int] = ((), top)
        self._times: list[tuple[tuple[str, ...], int, int]] = []

    def member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = self._parts(member.name)
        if not parts:
            return  # the directory itself, which is there
        parent, name = self._enter(parts[:-1]), parts[-1]
        if member.isdir():
            self._directory(parent, parts, name, member)
            return
        self._clear(parent, name)
        if member.isreg():
            self._file(archive, parent, name, member)
            return
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.islnk():
            target = self._parts(member.linkname)
            if not target:
                raise CommandError(f"invalid hardlink {member.name!r} -> {member.linkname!r}")
            keep = os.dup(parent)
            try:
                source = self._enter(target[:-1])
                os.link(target[-1], name, src_dir_fd=source, dst_dir_fd=keep, follow_symlinks=False)
            finally:
                os.close(keep)
            return
        elif member.isfifo():
            os.mkfifo(name, 0o600, dir_fd=parent)
        elif member.isdev():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
        else:
            raise CommandError(f"unhandled tar header type {member.type!r} of {member.name!r}")
        if not member.issym():
            os.chmod(name, member.mode, dir_fd=parent)
        moment = _moment(member)
        os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)

    def _parts(self, name: str) -> tuple[str, ...]:
        parts = tuple(part for part in self._rename(name).split("/") if part not in ("", "."))
        if ".." in parts:
            raise CommandError(f'"{name}" is outside of "{self._shown}"')
        return parts

    def _enter(self, parts: tuple[str, ...]) -> int:
        """The descriptor of a directory, made where it is missing; ours until the next call."""
        known, fd = self._parent
        if known == parts:
            return fd
        at = os.open(".", _DIRECTORY, dir_fd=self._top)
        for part in parts:
            try:
                below = os.open(part, _DIRECTORY, dir_fd=at)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=at)
                below = os.open(part, _DIRECTORY, dir_fd=at)
            finally:
                os.close(at)
            at = below
        self.close()
        self._parent = (parts, at)
        return at

    def _clear(self, parent: int, name: str) -> None:
        try:
            info = os.lstat(name, dir_fd=parent)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(info.st_mode):
            raise CommandError(
                f'cannot overwrite directory "{os.path.join(self._shown, name)}" '
                f'with non-directory "{self._shown}"'
            )
        os.unlink(name, dir_fd=parent)

    def _directory(self, parent: int, parts: tuple[str, ...], name: str, member: tarfile.TarInfo) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                raise CommandError(
                    f'cannot overwrite non-directory "{os.path.join(self._shown, name)}" '
                    f'with directory "{self._shown}"'
                ) from None
        self._times.append((parts, _moment(member), member.mode))

    def _file(self, archive: tarfile.TarFile, parent: int, name: str, member: tarfile.TarInfo) -> None:
        source = archive.extractfile(member)
        assert source is not None
        fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            while piece := source.read(_PIECE):
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
            for key, value in member.pax_headers.items():
                if key.startswith(_XATTR):
                    _set_xattr(fd, key[len(_XATTR) :], value)
            os.fchmod(fd, member.mode)
            moment = _moment(member)
            os.utime(fd, ns=(moment, moment))
        except BaseException:
            os.unlink(name, dir_fd=parent)
            raise
        finally:
            os.close(fd)

    def finish(self) -> None:
        """Modes and times of directories, now that nothing is written into them any more."""
        for parts, moment, mode in reversed(self._times):
            fd = self._enter(parts)
            os.fchmod(fd, mode)
            os.utime(fd, ns=(moment, moment))

    def close(self) -> None:
        if self._parent[1] != self._top:
            os.close(self._parent[1])
        self._parent = ((), self._top)


def _set_xattr(fd: int, name: str, value: str) -> None:
    try:
        os.setxattr(fd, name, value.encode("utf-8", "surrogateescape"))
    except OSError:
        pass  # not for us to set, or not known to this file system: docker goes on too


def _moment(member: tarfile.TarInfo) -> int:
    """The time of change in nanoseconds; tarfile's own number is a float, which has too few digits."""
    text = member.pax_headers.get("mtime")
    if text is None:
        return max(int(member.mtime), 0) * 1_000_000_000
    seconds, _, fraction = text.partition(".")
    return 0 if text.startswith("-") else int(seconds) * 1_000_000_000 + int((fraction + "0" * 9)[:9])
