"""An archive that the daemon streams, to a file (complete, or not at all) or to our standard output."""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError
from sampan.cli.streams import show_raw, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.client import Response


def check_output(path: str, failure: str) -> None:
    """Refuse a place that cannot take the archive, before the daemon is asked for it.

    Args:
        path: the file; empty for standard output.
        failure: what could not be done, for the message.

    Raises:
        CommandError: standard output is a terminal, or there can be no such file.
    """
    if not path and os.isatty(1):
        raise CommandError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
    folder = os.path.dirname(path) or "."
    if path and not os.path.isdir(folder):
        raise CommandError(f"{failure}: invalid output path: stat {folder}: no such file or directory")
    if path and os.path.isdir(path):
        raise CommandError(f'{failure}: invalid output path: "{path}" must be a file')


def write_output(path: str, failure: str, ask: Callable[[], Response]) -> None:
    """Ask for the archive and write it; see `check_output`."""
    check_output(path, failure)
    answer = ask()
    if not path:
        show_raw(answer.pieces())
        return
    if os.path.exists(path) and not os.path.isfile(
        path
    ):  # /dev/null, a pipe: nothing can be put in its place
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for piece in answer.pieces():
                write_all(fd, piece)
        finally:
            os.close(fd)
        return
    partial = os.path.join(os.path.dirname(path) or ".", f".{os.path.basename(path)}.{os.getpid()}.partial")
    fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for piece in answer.pieces():
            write_all(fd, piece)
        os.rename(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
    finally:
        os.close(fd)
