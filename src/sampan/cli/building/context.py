"""A directory as the context of a build: its files but for those in `.dockerignore`, as an archive.

Symbolic links are sent as links, so nothing outside the directory is. Owners are left out: all is root's.
"""

from __future__ import annotations

import os
import stat

from sampan.cli.copying.packing import member_of, text_member
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.dockerfile.ignoring import Ignored

IGNORE_FILE = ".dockerignore"


def pack(
    directory: str, dockerfile: str, text: bytes | None = None, ignore_file: str = ""
) -> Iterator[bytes]:
    """The archive's pieces.

    Args:
        dockerfile: its name in the archive, where it is whatever `.dockerignore` says.
        text: what it says, when it is no file of the directory; the daemon then leaves it out of the context.
        ignore_file: what stands in for the directory's `.dockerignore`, where that is there.

    Raises:
        CommandError: a file cannot be read, or `.dockerignore` is malformed.
    """
    own = _read(os.path.join(directory, IGNORE_FILE))
    listed = _read(ignore_file) if ignore_file else None
    listed = own if listed is None else listed
    ignored = _ignored(listed) if listed is not None else None
    if text is not None:
        yield text_member(dockerfile, text)
        gone = dockerfile if own is not None else f"{dockerfile}\n{IGNORE_FILE}"
        yield text_member(IGNORE_FILE, (listed or b"") + f"\n{gone}\n".encode())
    skipped = {dockerfile, IGNORE_FILE} if text is not None else set()
    always = {dockerfile, IGNORE_FILE}
    links: dict[tuple[int, int], str] = {}
    stack = [(os.path.join(directory, name), name) for name in _names(directory)]
    while stack:
        path, name = stack.pop()
        try:
            info = os.lstat(path)
        except FileNotFoundError:
            continue  # gone meanwhile
        out = ignored is not None and name not in always and ignored.excludes(name)
        if stat.S_ISDIR(info.st_mode):
            wanted = any(one.startswith(f"{name}/") for one in always)
            if out and not wanted and ignored is not None and not ignored.brings_back_below(name):
                continue
            stack += [(os.path.join(path, child), f"{name}/{child}") for child in _names(path)]
        if not out and name not in skipped:
            yield from member_of(path, name, info, links, owner=(0, 0))
    yield bytes(1024)


def of_text(text: bytes) -> Iterator[bytes]:
    """The archive of a Dockerfile alone."""
    yield text_member("Dockerfile", text)
    yield bytes(1024)


def _names(directory: str) -> list[str]:
    """What is in a directory, in an order for a stack."""
    try:
        return sorted(os.listdir(directory), reverse=True)
    except OSError as error:
        raise CommandError(f"open {directory}: {(error.strerror or '').lower()}") from None


def _read(ignore_file: str) -> bytes | None:
    try:
        with open(ignore_file, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(
            f"error reading {os.path.basename(ignore_file)}: {(error.strerror or '').lower()}"
        ) from None


def _ignored(text: bytes) -> Ignored:
    from sampan.dockerfile.ignoring import Ignored
    from sampan.errors import InvalidParameter

    try:
        return Ignored(text.decode("utf-8", "surrogateescape"))
    except InvalidParameter as error:
        raise CommandError(error.message) from None
