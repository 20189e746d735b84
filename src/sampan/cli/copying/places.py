"""The rules of `docker cp` for paths: what an ending "/" or "/." means, and what a copy is called."""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError


class Place:
    """One end of a copy.

    Args:
        path: with its trailing "/" or "/.", which asserts a directory.
        exists, is_dir: what is there.
        rebase: the name that the copy bears instead of the path's own; empty for that one.
    """

    __slots__ = ("exists", "is_dir", "path", "rebase")

    def __init__(self, path: str, exists: bool = False, is_dir: bool = False, rebase: str = "") -> None:
        self.path = path
        self.exists = exists
        self.is_dir = is_dir
        self.rebase = rebase


def split_argument(text: str) -> tuple[str, str]:
    """A container's name, empty for a local path, and the path."""
    if text.startswith("/"):
        return "", text
    name, colon, path = text.partition(":")
    if not colon or name.startswith("."):
        return "", text
    return name, path


def clean(path: str) -> str:
    """Without detours, as Go's filepath.Clean: no trailing slash, "." for nothing."""
    cleaned = os.path.normpath(path) if path else "."
    return "/" + cleaned.lstrip("/") if cleaned.startswith("//") else cleaned


def means_content(path: str) -> bool:
    """Whether the path ends in "." as a name of its own: the content of the directory, not itself."""
    return path.rstrip("/").rpartition("/")[2] == "."


def means_directory(path: str) -> bool:
    """Whether the path can only be a directory's."""
    return path.endswith("/") or means_content(path)


def keep_ending(cleaned: str, original: str) -> str:
    """The cleaned path with the trailing "/" or "/." of the original."""
    if means_content(original) and not means_content(cleaned):
        cleaned = cleaned.rstrip("/") + "/."
    if original.endswith("/") and not cleaned.endswith("/"):
        cleaned += "/"
    return cleaned


def local(path: str) -> str:
    """An absolute local path that keeps its ending."""
    return keep_ending(clean(os.path.join(os.getcwd(), path)), path)


def split(path: str) -> tuple[str, str]:
    """Directory and last part; a trailing "." counts as one."""
    whole = clean(path)
    if means_content(path) and whole != ".":
        return whole, "."
    above, _, base = whole.rpartition("/")
    if not base:
        return "/", "/"
    return above or ("/" if whole.startswith("/") else "."), base


def rebase_name(path: str, target: str) -> tuple[str, str]:
    """A link's target with the link's ending, and the name that the copy keeps when they differ."""
    if means_content(path) and not means_content(target):
        target = target.rstrip("/") + "/."
    if path.endswith("/") and not target.endswith("/"):
        target += "/"
    own, other = split(path)[1], split(target)[1]
    return target, own if own != other else ""


def arrange(source: Place, destination: Place) -> tuple[str, str, str]:
    """Where an archive is unpacked, and what its first name is called there.

    Returns:
        the directory, the name that leads all names in the archive, and the one to put in its place.

    Raises:
        CommandError: a directory onto a file, or a file into a directory that is not there.
    """
    directory, base = split(destination.path)
    own = source.rebase or split(source.path)[1]
    if destination.exists and destination.is_dir:
        return destination.path, own, own
    if destination.exists and source.is_dir:
        raise CommandError("cannot copy directory")
    if not destination.exists and not source.is_dir and means_directory(destination.path):
        raise CommandError("no such directory")
    return directory, own, base


def renamed(name: str, old: str, new: str) -> str:
    """A name in an archive with its first part replaced."""
    if old == "/":
        return new + "/" + name.lstrip("/") if new != "/" else name
    if name == old or name.startswith(old + "/"):
        return new + name[len(old) :]
    return name


def source_place(path: str, follow: bool) -> Place:
    """What is to be copied of this machine.

    Args:
        path: absolute, with its ending.
        follow: whether a link at its end stands for its target.

    Raises:
        CommandError: there is no such file.
    """
    try:
        if follow:
            target, rebase = rebase_name(path, os.path.realpath(path, strict=True))
        else:
            above, _, name = path.rpartition("/")
            target, rebase = os.path.realpath(above or "/", strict=True).rstrip("/") + "/" + name, ""
        is_dir = os.path.isdir(target) and not (os.path.islink(target) and not means_directory(target))
        os.lstat(target)
    except OSError as error:
        raise CommandError(f"lstat {path}: {(error.strerror or '').lower()}") from None
    return Place(target, True, is_dir, rebase)


def destination_place(path: str) -> Place:
    """Where a copy shall go on this machine; links are followed, and may lead to what is not there yet.

    Raises:
        CommandError: not even the directory is there, or links run in circles.
    """
    at = path
    for _ in range(11):
        try:
            info = os.lstat(at)
        except FileNotFoundError:
            above = split(at)[0]
            if not os.path.isdir(above):
                reason = (
                    "not a directory" if os.path.exists(above) else f"stat {above}: no such file or directory"
                )
                raise CommandError(reason) from None
            return Place(at)
        except OSError as error:
            raise CommandError(f"lstat {at}: {(error.strerror or '').lower()}") from None
        if not _is_link(info.st_mode):
            return Place(at, True, _is_directory(info.st_mode))
        target = os.readlink(at)
        at = target if target.startswith("/") else os.path.join(split(at)[0], target)
    raise CommandError(f"too many symlinks in {path}")


def _is_link(mode: int) -> bool:
    return mode & 0o170000 == 0o120000


def _is_directory(mode: int) -> bool:
    return mode & 0o170000 == 0o040000
