"""From `-u NAME[:GROUP]` to numbers, by the image's own /etc/passwd and /etc/group.

The files are an image author's: they are opened beneath the root whatever links lie about, and only regular
files of a sane size are read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import field

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
from sampan.linux import beneath, userns

_HIGHEST = 2**31 - 1
_DIGITS = 100  # Python reads no number of thousands
_SIZE_LIMIT_BYTES = 16 * 1024 * 1024
_PROMPT_BYTES = 64 * 1024


@dataclass(slots=True)
class User:
    """Whom a process runs as; `home` is "/" for a uid without an entry."""

    uid: int
    gid: int
    additional_gids: list[int] = field(default_factory=list)
    home: str = "/"


def lookup_user(root: str | int, user: str, groups: Sequence[str] = (), prompt: bool = False) -> User:
    """Resolve a user as the container's root file system knows it.

    Args:
        root: path or descriptor of the root directory.
        user: `name`, `uid`, `name:group`, `uid:gid`, … ; empty for uid 0.
        groups: of `--group-add`: names or numbers.
        prompt: be done at once: look at nothing that is large, or on a file system mounted in there, which
            may be one that does not answer.

    Raises:
        InvalidParameter: in Docker's words, when a name is not in the files or a number is out of range; in
            ours, where a daemon without root lacks the user.
        BlockingIOError: it cannot be done at once.
    """
    if isinstance(root, str):
        fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = _lookup(fd, user, groups, prompt)
        finally:
            os.close(fd)
    else:
        found = _lookup(root, user, groups, prompt)
    if userns.nested():
        _check_exists(found)
    return found


def _check_exists(user: User) -> None:
    groups = [user.gid, *(user.additional_gids if userns.groups_may_be_set() else ())]
    for kind, word, numbers in (("uid", "user", [user.uid]), ("gid", "group", groups)):
        for number in numbers:
            if not userns.exists(kind, number):
                raise InvalidParameter(
                    f"{word} {number} does not exist here: without root the highest is as /etc/sub{kind} has "
                    f"it, now {userns.highest(kind, _HIGHEST)}; `sudo usermod --add-sub{kind}s FIRST-LAST "
                    "NAME` adds more, for the daemon that starts when no container runs"
                )


def _lookup(root: int, user: str, groups: Sequence[str], prompt: bool) -> User:
    name, _, group = user.partition(":")
    found = User(uid=0, gid=0)
    wanted = name or "0"
    users = _rows(_read(root, "/etc/passwd", prompt), 6)
    matched = next((row for row in users if wanted in (row[0], _plain(row[2]))), None)
    if matched is not None:
        found.uid, found.gid = int(matched[2]), int(matched[3] or 0)
        found.home = matched[5] or "/"
    elif name:
        number = _number(name)
        if number is None:
            raise InvalidParameter(f"unable to find user {name}: no matching entries in passwd file")
        found.uid = number
    memberships: list[int] = []
    if group or groups or matched is not None:
        rows = list(_rows(_read(root, "/etc/group", prompt), 3))
        if group:
            found.gid = _group(
                rows, group, f"unable to find group {group}: no matching entries in group file"
            )
        elif matched is not None:
            memberships = [int(row[2]) for row in rows if len(row) > 3 and matched[0] in row[3].split(",")]
        memberships += [
            _group(rows, each, f"Unable to find group {each}: no matching entries in group file")
            for each in groups
        ]
    found.additional_gids = list(dict.fromkeys([found.gid, *memberships]))
    return found


def _group(rows: Sequence[Sequence[str]], wanted: str, complaint: str) -> int:
    for row in rows:
        if wanted in (row[0], _plain(row[2])):
            return int(row[2])
    number = _number(wanted)
    if number is None:
        raise InvalidParameter(complaint)
    return number


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()):
        return None
    if len(text) > _DIGITS or int(text) > _HIGHEST:
        raise InvalidParameter(f"uids and gids must be in range 0-{_HIGHEST}")
    return int(text)


def _plain(text: str) -> str:
    return str(int(text))


def _rows(text: str, columns: int) -> Iterator[list[str]]:
    """The usable lines of a file like passwd(5): enough columns, and numbers where numbers belong."""
    for line in text.splitlines():
        row = line.strip().split(":")
        numeric = row[2:4] if columns > 3 else row[2:3]
        if len(row) < columns or not row[0] or row[0].startswith("#"):
            continue
        if all(_is_id(cell) for cell in numeric):
            yield row


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text) <= _HIGHEST


def _read(root: int, path: str, prompt: bool) -> str:
    """The file's text; empty when there is none, as an image need not have one."""
    try:
        place = beneath.open_path(root, path, crossing=not prompt)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return ""
        if error.errno == errno.EXDEV:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path) from None
        raise
    try:
        found = os.fstat(place)
        if not stat.S_ISREG(found.st_mode):
            return ""
        if prompt and found.st_size > _PROMPT_BYTES:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path)
        if found.st_size > _SIZE_LIMIT_BYTES:
            raise InvalidParameter(f"{path} in the image is larger than {_SIZE_LIMIT_BYTES} bytes")
        with open(f"/proc/self/fd/{place}", "rb") as file:
            return file.read(_SIZE_LIMIT_BYTES).decode(errors="surrogateescape")
    finally:
        os.close(place)
