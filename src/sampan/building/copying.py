"""COPY and ADD: which files their words mean, what identifies those, and how they come into an image.

Sources are looked up beneath the root that they are in (a context, or another image's files) and the target
beneath the new image's, by the kernel (openat2); nobody else changes either meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO, cast

from sampan.dataclasses import dataclass
from sampan.dockerfile.ignoring import Ignored, path_expression
from sampan.dockerfile.modes import ModeChange
from sampan.errors import InvalidParameter
from sampan.linux import beneath
from sampan.storage import InvalidArchive, InvalidLayer, extract, write_path, write_tree
from sampan.storage.compression import decompressed
from sampan.storage.tar_reader import Source as TarSource
from sampan.storage.tar_reader import members
from sampan.storage.tar_writer import TarWriter

_WILD = "*?["
_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Source:
    """One file or directory to copy.

    Attributes:
        root: descriptor of the root that it lies beneath.
        path: beneath that, links resolved.
        name: what it is called where it goes into a directory.
        directory: whether it is one; its contents are what is copied.
        may_unpack: whether ADD unpacks it if it is an archive.
        below: the directories that `--parents` makes above it where it goes.
    """

    root: int
    path: str
    name: str
    directory: bool
    may_unpack: bool = True
    below: str = ""


@dataclass(frozen=True, slots=True)
class Treatment:
    """What copied files become.

    Attributes:
        owner: uid and gid; None for those they have.
        mode: what becomes of their permissions; None for nothing.
        unpack: whether archives are unpacked, as ADD does.
        chosen: whether the owner was asked for, and so is that of an archive's files, too.
        check: called now and then; it may raise.
        excluded: patterns of what is left out, as in `.dockerignore`.
    """

    owner: tuple[int, int] | None
    mode: ModeChange | None
    unpack: bool
    check: Callable[[], None]
    chosen: bool = False
    excluded: Ignored | None = None


# --- what the words mean ---


def find(root: int, word: str, context: bool, parents: bool = False) -> list[Source]:
    """The files that one word of COPY or ADD means, sorted.

    Args:
        context: whether the root is a build context, for messages.
        parents: keep the directories above them, those after a "/./" where there is one, as `--parents` does;
            `**` then stands for any number of directories.

    Raises:
        InvalidParameter: there is none, or the word leads out of the root.
    """
    path = _inside(word, word)
    pivot = _inside(word.partition("/./")[0], word) if parents and "/./" in word else "."
    if not _is_wild(path):
        found = [located(root, path, word, context)]
    else:
        deep = parents and "**" in path
        expression = path_expression(path if deep else path.replace("**", "*"))
        matches = _walk(root, "", None if deep else path.count("/"))
        found = [located(root, one, one, context) for one in sorted(matches) if expression.fullmatch(one)]
    return [_with_parents(one, pivot) for one in found] if parents else found


def _inside(word: str, whole: str) -> str:
    """A word as a path of the root."""
    path = os.path.normpath(word.lstrip("/") or ".")
    if path == ".." or path.startswith("../"):
        raise InvalidParameter(f"forbidden path outside the build context: {whole} ()")
    return path


def _with_parents(source: Source, pivot: str) -> Source:
    path = os.path.relpath(source.path, os.path.join("/", pivot))
    if path == ".." or path.startswith("../"):  # a link has led elsewhere
        path = source.name
    return replace(source, below=path if source.directory else os.path.dirname(path))


def _is_wild(path: str) -> bool:
    at = 0
    while at < len(path):
        if path[at] == "\\":
            at += 1
        elif path[at] in _WILD:
            return True
        at += 1
    return False


def _walk(root: int, below: str, depth: int | None) -> Iterator[str]:
    """The paths of what lies so many directories below one, or of all files; links are not followed."""
    try:
        directory = beneath.open_path(root, below or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        with os.scandir(directory) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    finally:
        os.close(directory)
    for name, is_directory in names:
        path = f"{below}/{name}" if below else name
        if is_directory if depth is None else depth:
            yield from _walk(root, path, None if depth is None else depth - 1)
        else:
            yield path


def located(root: int, path: str, word: str, context: bool) -> Source:
    """The file or directory at a path beneath a root.

    Args:
        word: what it is called in messages.
        context: whether the root is a build context, for those.

    Raises:
        InvalidParameter: there is none.
    """
    try:
        real = beneath.real_path(root, path)
        handle = beneath.open_path(root, real)
    except OSError as error:
        where = "file not found in build context or excluded by .dockerignore: " if context else ""
        why = "file does not exist" if isinstance(error, FileNotFoundError) else error.strerror
        raise InvalidParameter(f"{where}stat {word.lstrip('/')}: {why}") from None
    try:
        directory = stat.S_ISDIR(os.fstat(handle).st_mode)
    finally:
        os.close(handle)
    return Source(root, real, os.path.basename(path), directory)


# --- what identifies them ---


def digest(sources: Sequence[Source], treatment: Treatment) -> str:
    """What names the contents of sources: kinds, names, modes, owners where they count, and bytes."""
    found = [_digest(source, treatment) for source in sources]
    if len(found) == 1:
        return found[0]
    return "multi:" + hashlib.sha256(",".join(found).encode()).hexdigest()


def _digest(source: Source, treatment: Treatment) -> str:
    hashed = hashlib.sha256()

    class Sink:
        def write(self, data: Any) -> None:
            treatment.check()
            hashed.update(data)

    hashed.update(source.below.encode("utf-8", "surrogateescape"))
    _write(source, _Timeless(cast("BinaryIO", Sink()), treatment), source.name, treatment.excluded)
    return f"{'dir' if source.directory else 'file'}:{hashed.hexdigest()}"


class _Treating(TarWriter):
    """Writes files as what they become."""

    def __init__(self, out: BinaryIO, treatment: Treatment) -> None:
        super().__init__(out)
        self._treatment = treatment

    def header(self, name: bytes, kind: bytes, **members: Any) -> None:
        self._treatment.check()
        if self._treatment.owner is not None:
            members["uid"], members["gid"] = self._treatment.owner
        if self._treatment.mode is not None and kind != b"2":
            members["mode"] = self._treatment.mode(members.get("mode", 0o644), kind == b"5")
        super().header(name, kind, **members)


class _Timeless(_Treating):
    """For digests: the same files of another time are the same."""

    def header(self, name: bytes, kind: bytes, **members: Any) -> None:
        super().header(name, kind, **{**members, "mtime_ns": 0})


def _write(source: Source, writer: TarWriter, name: str, excluded: Ignored | None) -> None:
    """Write a source as the members of an archive: a directory's contents, or one file called `name`."""

    def leave_out(_writer: TarWriter, _at: int, _name: bytes, path: bytes, info: os.stat_result) -> bool:
        text = os.fsdecode(path)
        if excluded is None or not excluded.excludes(text):
            return False
        return not (stat.S_ISDIR(info.st_mode) and excluded.brings_back_below(text))

    if not source.directory:
        write_path(writer, source.root, source.path, os.fsencode(name))
        return
    directory = beneath.open_path(source.root, source.path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        write_tree(writer, directory, leave_out if excluded is not None else None)
    finally:
        os.close(directory)


# --- how they come into an image ---


def place(root: int, target: str, sources: Sequence[Source], treatment: Treatment) -> None:
    """Copy sources to a path beneath a root.

    Args:
        target: absolute; with "/" at its end it is a directory, whatever is there.

    Raises:
        InvalidParameter: something stands in the way.
        OSError: of the file system, which may be full.
    """
    owner = treatment.owner or (0, 0)
    whole = beneath.real_path(root, target)
    for source in sources:
        real = beneath.real_path(root, f"{whole}/{source.below}") if source.below else whole
        if source.directory:
            make_directory(root, real, owner)
            _copy(root, real, source, source.name, treatment)
        elif treatment.unpack and source.may_unpack and _is_archive(source):
            make_directory(root, real, owner)
            _unpack(root, real, source, treatment)
        elif target.endswith("/") or source.below or _is_directory(root, real):
            make_directory(root, real, owner)
            _copy(root, real, source, source.name, treatment)
        else:
            above, _, name = real.rpartition("/")
            make_directory(root, above or "/", owner)
            _copy(root, above or "/", source, name, treatment)


def make_directory(root: int, path: str, owner: tuple[int, int] = (0, 0)) -> None:
    """Make a directory beneath a root with those above it; what is there stays as it is.

    Args:
        path: absolute, its links resolved.

    Raises:
        InvalidParameter: something else is there.
    """
    done = ""
    try:
        for name in [part for part in path.split("/") if part]:
            above, done = done or "/", f"{done}/{name}"
            try:
                os.close(beneath.open_path(root, done, os.O_PATH | os.O_DIRECTORY))
                continue
            except FileNotFoundError:
                pass
            parent = beneath.open_path(root, above, os.O_PATH | os.O_DIRECTORY)
            try:
                os.mkdir(name, 0o755, dir_fd=parent)
                os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
                os.chmod(name, 0o755, dir_fd=parent)
            finally:
                os.close(parent)
    except NotADirectoryError:
        raise InvalidParameter(f"cannot copy to non-directory: {done}") from None


def _is_directory(root: int, path: str) -> bool:
    try:
        os.close(beneath.open_path(root, path, os.O_PATH | os.O_DIRECTORY))
    except OSError:
        return False
    return True


def _open(source: Source) -> BinaryIO:
    """A source that is a file, for reading."""
    handle = beneath.open_path(source.root, source.path)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise InvalidParameter(f"{source.path} is no regular file")
        return open(f"/proc/self/fd/{handle}", "rb", buffering=0)
    finally:
        os.close(handle)


def _is_archive(source: Source) -> bool:
    try:
        with _open(source) as file:
            _, plain = decompressed(file)
            return next(members(TarSource(plain)), None) is not None
    except (InvalidLayer, InvalidParameter):
        return False


def _unpack(root: int, target: str, source: Source, treatment: Treatment) -> None:
    try:
        with _open(source) as file:
            extract(root, target, file, owner=treatment.owner if treatment.chosen else None)
    except InvalidArchive as error:
        raise InvalidParameter(f"unpacking {source.name}: {error.message}") from error


def _copy(root: int, target: str, source: Source, name: str, treatment: Treatment) -> None:
    """Copy by way of an archive, which keeps links, attributes and times."""
    reading, writing = os.pipe()
    failure: list[BaseException] = []

    def write() -> None:
        try:
            with open(writing, "wb", buffering=_BUFFER_BYTES) as out:
                writer = _Treating(out, treatment)
                _write(source, writer, name, treatment.excluded)
                writer.close()
        except BaseException as error:  # raised by who reads
            failure.append(error)

    thread = threading.Thread(target=write, name="copy", daemon=True)
    thread.start()
    try:
        with open(reading, "rb", buffering=0) as file:
            extract(root, target, file, compressed=False)
    except BaseException as error:
        thread.join()
        if failure and not isinstance(failure[0], BrokenPipeError):
            raise failure[0] from None
        if isinstance(error, InvalidArchive):
            raise InvalidParameter(error.message) from error
        raise
    thread.join()
    if failure:
        raise failure[0]
