"""A layer's archive to files beneath one directory, whatever the archive tries (OCI image spec, layer).

Names are resolved by the kernel with the directory as their root (`openat2`, RESOLVE_IN_ROOT), so that `..`,
absolute links and links that are planted half-way all end inside it; the last component is never followed. As
with the engines that unpack in a chroot, links within the layer work, and lower layers are not looked at.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from typing import Protocol

from sampan.linux import syscalls, userns
from sampan.storage import tar_reader
from sampan.storage.errors import InvalidLayer
from sampan.storage.limits import Limits
from sampan.storage.tar_reader import Member, Source

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
_RESERVED = b".wh..wh."
_CACHED_DIRECTORIES = 200
_CHECK_SPACE_EVERY = 256 << 20
_IGNORED_XATTR_ERRORS = (errno.EOPNOTSUPP, errno.EPERM)
_HIDDEN_XATTRS = ("trusted.overlay.", "user.overlay.")  # would steer the overlay mount from inside a layer
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Whiteouts(Protocol):
    """How a driver records that a layer hides something of the layers below.

    Attributes:
        needs_written: whether it wants to know what the layer itself has brought (`Unpacker.written`).
    """

    needs_written: bool

    def hide(self, unpacker: Unpacker, parent: int, directory: bytes, name: bytes, member: Member) -> None:
        """Hide `name` in the directory behind descriptor `parent`, whose path is `directory`."""

    def hide_all(self, unpacker: Unpacker, parent: int, directory: bytes) -> None:
        """Hide whatever lower layers have in the directory."""

    def replaced(self, path: bytes, directory_fd: int) -> None:
        """A directory now stands where this layer had hidden `path`."""


class Unpacker:
    """Writes the members of one archive beneath `root`.

    Args:
        root: descriptor of an existing directory; it stays the caller's.
        whiteouts: what to do with whiteout members; None when such names are plain files.
        limits: bounds on what the archive may unfold to.
        implied: metadata (mode, uid, gid, mtime in ns) for a directory that the archive needs and does
            not hold, by path; for what lower layers know.
    """

    def __init__(
        self,
        root: int,
        whiteouts: Whiteouts | None,
        limits: Limits | None = None,
        implied: Callable[[bytes], os.stat_result | None] | None = None,
    ) -> None:
        self.root = root
        self.size = 0
        self.written: set[bytes] | None = set() if whiteouts and whiteouts.needs_written else None
        self.hidden: set[bytes] = set()
        self._whiteouts = whiteouts
        self._limits = limits or Limits()
        self._implied = implied
        self._cache: dict[bytes, int] = {}
        self._last: tuple[bytes, int] = (b"", root)
        self._times: dict[bytes, tuple[int, int]] = {}
        self._made: dict[int, tuple[int, int, int]] = {}  # by mode: owner, group and mode of a new file
        self._made_in = -1  # the directory for which that is so
        self._stored = 0
        self._next_check = 0

    def run(self, stream: tar_reader.Readable) -> int:
        """Unpack the whole stream, and read it to its end.

        Returns:
            the sum of the sizes of its files in bytes.

        Raises:
            InvalidLayer: the archive is broken, hostile or too large. What was written stays: the caller
                drops the directory.
        """
        source = Source(stream)
        count, most = 0, self._limits.max_members
        try:
            for member in tar_reader.members(source):
                count += 1
                if count > most:
                    raise InvalidLayer(f"the layer has more than {most} files")
                try:
                    self._member(member, source)
                except OSError as error:
                    raise _explain(member, error) from error
            source.drain()
            self._finish_directories()
        finally:
            self._forget()
        return self.size

    # --- one member ---

    def _wrote(self, path: bytes) -> None:
        if self.written is not None:
            self.written.add(path)

    def _member(self, member: Member, source: Source) -> None:
        path = normalise(member.name)
        if not path:
            source.skip(member.size + -member.size % 512)
            return  # the root itself keeps the metadata that every engine gives it
        directory, _, name = path.rpartition(b"/")
        parent = self._last[1] if directory == self._last[0] else self._parent(directory)
        if self._whiteouts is not None and name.startswith(WHITEOUT):
            source.skip(member.size + -member.size % 512)
            self._whiteout(self._whiteouts, parent, directory, name, member)
            return
        kind = member.kind
        if kind == tar_reader.REGULAR:
            self._regular(parent, path, name, member, source)
            return
        self._made.clear()
        if kind == tar_reader.DIRECTORY:
            self._directory(parent, path, name, member)
        elif kind == tar_reader.SYMLINK:
            self._replacing(parent, path, name, lambda: os.symlink(member.link, name, dir_fd=parent))
            self._finish(parent, name, member)
        elif kind == tar_reader.LINK:
            self._link(parent, path, name, member)
        elif kind in (tar_reader.CHARACTER, tar_reader.BLOCK_DEVICE, tar_reader.FIFO):
            self._node(parent, path, name, member)
        else:
            shown = os.fsdecode(member.name)
            raise InvalidLayer(f"{shown}: members of type {kind.decode('latin-1')!r} are not supported")
        self._wrote(path)

    def _regular(self, parent: int, path: bytes, name: bytes, member: Member, source: Source) -> None:
        size, mode = member.size, member.mode & 0o777
        self._stored += size
        if self._stored >= self._next_check:
            self._check_space(size)
        try:
            fd = os.open(name, _CREATE, mode, dir_fd=parent)
        except FileExistsError:
            self.remove(parent, path, name)
            fd = os.open(name, _CREATE, mode, dir_fd=parent)
        try:
            if member.sparse is not None:
                self._sparse(fd, member, source)
                source.skip(-size % 512)
            elif size <= tar_reader.READ_SIZE:
                if size:
                    padded = size + -size % 512
                    data = source.view(padded)
                    if len(data) < size:  # the last padding may be missing: docker's client leaves it out
                        raise InvalidLayer("the archive ends in the middle of a file")
                    tar_reader.write_all(fd, memoryview(data)[:size])
            else:
                source.copy_to(fd, size)
                source.exact(-size % 512)
            # Owner and mode are right at once unless a umask, an ACL, the directory's group or the owner's
            # number says otherwise; that is the same for all files of a directory and a mode.
            if parent != self._made_in:
                self._made_in = parent
                self._made.clear()
            made = self._made.get(mode)
            if made is None:
                info = os.fstat(fd)
                made = self._made[mode] = (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode))
            uid, gid, made_mode = made
            if uid != member.uid or gid != member.gid:
                os.fchown(fd, member.uid, member.gid)
            if member.xattrs:
                _set_xattrs(fd, member.xattrs)
            if made_mode != member.mode or member.xattrs:
                os.fchmod(fd, member.mode)
            moment = member.mtime_ns if member.mtime_ns > 0 else 0
            os.utime(fd, ns=(moment, moment))
        finally:
            os.close(fd)
        self.size += member.real_size
        self._wrote(path)

    def _sparse(self, fd: int, member: Member, source: Source) -> None:
        left = member.size
        for offset, count in member.sparse or ():
            if offset < 0 or count < 0 or offset + count > member.real_size or count > left:
                raise InvalidLayer(f"{os.fsdecode(member.name)}: the sparse map does not fit the file")
            os.lseek(fd, offset, os.SEEK_SET)
            source.copy_to(fd, count)
            left -= count
        source.skip(left)
        os.ftruncate(fd, member.real_size)

    def _directory(self, parent: int, path: bytes, name: bytes, member: Member) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self.remove(parent, path, name)
                os.mkdir(name, 0o700, dir_fd=parent)
        fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
        try:
            os.fchown(fd, member.uid, member.gid)
            if member.xattrs:
                _set_xattrs(fd, member.xattrs)
            if self._whiteouts is not None and path in self.hidden:
                self.hidden.discard(path)
                self._whiteouts.replaced(path, fd)
            # A set-group-id directory would hand its group on to files that come later: its mode is set last.
            os.fchmod(fd, member.mode & ~stat.S_ISGID)
        except BaseException:
            os.close(fd)
            raise
        self._times[path] = (member.mtime_ns, member.mode)
        self._remember(path, fd)

    def _link(self, parent: int, path: bytes, name: bytes, member: Member) -> None:
        target = normalise(member.link, "hard link to ")
        if target == path:
            raise InvalidLayer(f"{os.fsdecode(member.name)}: a hard link to itself")
        if not target:
            raise InvalidLayer(f"{os.fsdecode(member.name)}: a hard link to a directory")
        target_directory, _, target_name = target.rpartition(b"/")
        # The lookup of the target may push the parent's descriptor out of the cache.
        parent = os.dup(parent)
        try:
            target_fd = self._open(target_directory)
            try:
                info = os.stat(target_name, dir_fd=target_fd, follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    raise InvalidLayer(f"{os.fsdecode(member.name)}: a hard link to a directory")
                self._replacing(
                    parent,
                    path,
                    name,
                    lambda: os.link(
                        target_name, name, src_dir_fd=target_fd, dst_dir_fd=parent, follow_symlinks=False
                    ),
                )
            finally:
                os.close(target_fd)
        except FileNotFoundError:
            shown = os.fsdecode(member.link)
            raise InvalidLayer(
                f"{os.fsdecode(member.name)}: hard link to {shown!r}, which is not in the same layer"
            ) from None
        finally:
            os.close(parent)

    def _node(self, parent: int, path: bytes, name: bytes, member: Member) -> None:
        kinds = {tar_reader.CHARACTER: stat.S_IFCHR, tar_reader.BLOCK_DEVICE: stat.S_IFBLK}
        mode = kinds.get(member.kind, stat.S_IFIFO) | 0o600
        if not (0 <= member.major < 1 << 12 and 0 <= member.minor < 1 << 20):
            raise InvalidLayer(
                f"{os.fsdecode(member.name)}: no device has the number {member.major}:{member.minor}"
            )
        device = os.makedev(member.major, member.minor)
        try:
            self._replacing(parent, path, name, lambda: os.mknod(name, mode, device, dir_fd=parent))
        except PermissionError:
            if not userns.nested() or member.kind not in kinds:
                raise
            return  # as Docker does: nobody can make one here, and a container gets a /dev of its own
        self._finish(parent, name, member)

    def _finish(self, parent: int, name: bytes, member: Member) -> None:
        """Owner, mode and times of what cannot be opened: links, devices, fifos."""
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        if member.kind != tar_reader.SYMLINK:
            _chmod(parent, name, member.mode)
        if member.xattrs:
            _set_xattrs(f"/proc/self/fd/{parent}/".encode() + name, member.xattrs)
        moment = max(member.mtime_ns, 0)
        os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)

    def _whiteout(
        self, whiteouts: Whiteouts, parent: int, directory: bytes, name: bytes, member: Member
    ) -> None:
        if name == OPAQUE:
            whiteouts.hide_all(self, parent, directory)
        elif name.startswith(_RESERVED):
            return  # bookkeeping of aufs (.wh..wh.plnk and the like), which no engine unpacks
        else:
            hidden = name[len(WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise InvalidLayer(f"{os.fsdecode(member.name)}: a whiteout that names no file")
            whiteouts.hide(self, parent, directory, hidden, member)

    # --- directories ---

    def _parent(self, directory: bytes) -> int:
        """The descriptor of a directory, made with its parents when the archive did not hold it yet."""
        fd = self._cache.get(directory)
        if fd is None:
            fd = self._open(directory)
            self._remember(directory, fd)
        else:
            self._last = (directory, fd)
        return fd

    def _open(self, directory: bytes) -> int:
        """A new descriptor of a directory, which the caller closes."""
        try:
            fd = self._resolve(directory)
        except FileNotFoundError:
            self._imply(directory)
            return self._resolve(directory)
        if self.written is not None and directory:
            self._keep_time(directory, fd)
        return fd

    def _keep_time(self, directory: bytes, fd: int) -> None:
        """Let what is done in a directory of lower layers, in a full copy of them, not change its time."""
        if directory not in self._times:
            info = os.fstat(fd)
            self._times[directory] = (info.st_mtime_ns, stat.S_IMODE(info.st_mode))

    def _resolve(self, directory: bytes) -> int:
        return syscalls.openat2(
            self.root, directory or b".", os.O_RDONLY | os.O_DIRECTORY, resolve=syscalls.RESOLVE_IN_ROOT
        )

    def _imply(self, directory: bytes) -> None:
        """Make a directory that the archive takes for granted."""
        above, _, name = directory.rpartition(b"/")
        parent = self._open(above)
        try:
            known = self._implied(directory) if self._implied else None
            try:
                os.mkdir(name, 0o755, dir_fd=parent)
            except FileExistsError:
                if directory not in self.hidden:
                    raise InvalidLayer(f"{os.fsdecode(directory)}: a parent that leads nowhere") from None
                self.remove(parent, directory, name)
                os.mkdir(name, 0o755, dir_fd=parent)
            fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
            try:
                if self._whiteouts is not None and directory in self.hidden:
                    self.hidden.discard(directory)
                    self._whiteouts.replaced(directory, fd)
                if known is None:
                    os.fchmod(fd, 0o755)
                else:
                    os.fchown(fd, known.st_uid, known.st_gid)
                    os.fchmod(fd, stat.S_IMODE(known.st_mode) & ~stat.S_ISGID)
                    self._times[directory] = (known.st_mtime_ns, stat.S_IMODE(known.st_mode))
            finally:
                os.close(fd)
        finally:
            os.close(parent)
        self._wrote(directory)

    def _remember(self, directory: bytes, fd: int) -> None:
        self._last = (b"", self.root)
        while len(self._cache) >= _CACHED_DIRECTORIES:
            oldest = next(iter(self._cache))
            os.close(self._cache.pop(oldest))
        before = self._cache.pop(directory, None)
        if before is not None:
            os.close(before)
        self._cache[directory] = fd
        self._last = (directory, fd)
        self._made.clear()  # the number may have been another directory's

    def _forget(self) -> None:
        for fd in self._cache.values():
            os.close(fd)
        self._cache.clear()
        self._last = (b"", self.root)

    def _finish_directories(self) -> None:
        """Times and full modes of directories, now that nothing is written into them any more."""
        for path, (mtime_ns, mode) in self._times.items():
            try:
                fd = syscalls.openat2(
                    self.root,
                    path,
                    os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW,
                    resolve=syscalls.RESOLVE_IN_ROOT,
                )
            except (FileNotFoundError, NotADirectoryError):
                continue  # a later member of the archive replaced it
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                continue
            try:
                if mode & stat.S_ISGID:
                    os.fchmod(fd, mode)
                moment = max(mtime_ns, 0)
                os.utime(fd, ns=(moment, moment))
            finally:
                os.close(fd)

    # --- replacing and removing ---

    def _replacing(self, parent: int, path: bytes, name: bytes, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self.remove(parent, path, name)
            make()

    def remove(self, parent: int, path: bytes, name: bytes) -> None:
        """Take away what an earlier member, or a lower layer in a full copy, put at this place."""
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            keep = os.dup(
                parent
            )  # descriptors of directories below are stale now, and so may be the parent's
            try:
                self._drop_cached(path)
                shutil.rmtree(name, dir_fd=keep)
            finally:
                os.close(keep)
            below = path + b"/"
            self._times = {
                known: value
                for known, value in self._times.items()
                if known != path and not known.startswith(below)
            }
        else:
            os.unlink(name, dir_fd=parent)
            if stat.S_ISLNK(info.st_mode):
                self._drop_cached(path)

    def _drop_cached(self, path: bytes) -> None:
        # Other names may lead through a link into what goes away; only what is above `path` is surely alive.
        directory = path.rpartition(b"/")[0]
        for known in [known for known in self._cache if known != directory]:
            os.close(self._cache.pop(known))
        if self._last[0] != directory:
            self._last = (b"", self.root)

    # --- limits ---

    def _check_space(self, count: int) -> None:
        """Look at the limits, `count` bytes before what has been reserved is written."""
        most, kept = self._limits.max_bytes, self._limits.min_free_bytes
        if self._stored > most:
            raise InvalidLayer(f"the layer unfolds to more than {most} bytes")
        space = os.fstatvfs(self.root)
        free = space.f_bavail * space.f_frsize
        if count + kept > free:
            raise InvalidLayer(f"no space for the layer: {free} bytes are free, and {kept} must stay so")
        self._next_check = min(most + 1, self._stored + min(_CHECK_SPACE_EVERY, max(free // 4, 1 << 20)))


def normalise(name: bytes, what: str = "") -> bytes:
    """A member's name as a path below the root: `b"usr/bin"`, empty for the root itself.

    Raises:
        InvalidLayer: when it climbs out of the root by its own `..`.
    """
    if not name:
        raise InvalidLayer("a member of the archive has no name")
    if b"/." not in name and b"//" not in name and name[0] not in b"./":
        return name.rstrip(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidLayer(f"{what}{os.fsdecode(name)!r} is outside of the root file system")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _chmod(parent: int, name: bytes, mode: int) -> None:
    """Set the mode of what cannot be opened; a link that a container puts in its place is left alone."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if not stat.S_ISLNK(os.fstat(handle).st_mode):
            os.chmod(f"/proc/self/fd/{handle}", mode)
    finally:
        os.close(handle)


def _set_xattrs(target: int | bytes, xattrs: dict[str, bytes]) -> None:
    for key, value in xattrs.items():
        if key.startswith(_HIDDEN_XATTRS):
            continue
        try:
            if isinstance(target, int):
                os.setxattr(target, os.fsencode(key), value)
            else:
                os.setxattr(target, os.fsencode(key), value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _IGNORED_XATTR_ERRORS:
                raise


def _explain(member: Member, error: OSError) -> Exception:
    """Errors that the archive caused are the archive's; the machine's stay what they are."""
    shown = os.fsdecode(member.name[:200])
    causes = (
        errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EINVAL, errno.EFBIG, errno.ENOENT, errno.EEXIST,
        errno.EISDIR, errno.ERANGE, errno.E2BIG,
    )  # fmt: skip
    if error.errno == errno.EINVAL and userns.nested() and not userns.has(member.uid, member.gid):
        return InvalidLayer(
            f"{shown}: its owner {member.uid}:{member.gid} does not exist here: without root there are as "
            "many users as /etc/subuid and /etc/subgid give (see the warnings of `info`)"
        )
    if error.errno in causes:
        return InvalidLayer(f"{shown}: cannot be unpacked: {os.strerror(error.errno)}")
    if error.errno is None:
        return error  # the stream's: it says what is wrong itself
    return OSError(error.errno, f"unpacking {shown}: {os.strerror(error.errno or 0)}")
