"""What `build PATH | URL | -` names: the pieces of a context, or a URL for the daemon."""

from __future__ import annotations

import os
import secrets

from sampan.cli.building.context import of_text, pack
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_PREPARE = "unable to prepare context: "
_GIT = ("git://", "git@", "ssh://", "github.com/")
_ARCHIVES = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_USUAL = "Dockerfile"
_BLOCK = 512
_PIECE = 1 << 18


class Source:
    """A context to send.

    Attributes:
        pieces: the archive's; None when the daemon is to fetch it.
        dockerfile: its name in the context; empty for the usual one.
        remote: the URL to fetch.
    """

    def __init__(self, pieces: Iterator[bytes] | None, dockerfile: str = "", remote: str = "") -> None:
        self.pieces = pieces
        self.dockerfile = dockerfile
        self.remote = remote


def source_of(word: str, dockerfile: str) -> Source:
    """What to send for `build WORD` with `--file DOCKERFILE`.

    Raises:
        CommandError: there is no such context or Dockerfile.
    """
    if dockerfile == "-" and word == "-":
        raise CommandError("invalid argument: can't use stdin for both build context and dockerfile")
    if word == "-":
        return _of_input(dockerfile)
    if os.path.isdir(word):
        return _of_directory(word, dockerfile)
    if word.startswith((*_GIT, "http://", "https://")):
        if dockerfile == "-":
            raise CommandError("invalid argument: a Dockerfile from stdin needs a directory as its context")
        return Source(None, dockerfile, word)
    if os.path.lexists(word):
        raise CommandError(f"{_PREPARE}context must be a directory: {os.path.abspath(word)}")
    raise CommandError(f'{_PREPARE}path "{word}" not found')


def _of_input(dockerfile: str) -> Source:
    """Our input: an archive, or a Dockerfile alone."""
    start = _read_input(_BLOCK)
    if start.startswith(_ARCHIVES) or start[257:262] == b"ustar":

        def pieces() -> Iterator[bytes]:
            yield start
            while piece := os.read(0, _PIECE):
                yield piece

        return Source(pieces(), dockerfile)
    if dockerfile:
        raise CommandError("invalid argument: can't use a Dockerfile from stdin together with --file")
    return Source(of_text(start + _read_input()))


def _read_input(least: int | None = None) -> bytes:
    """Our input up to its end, or until so many bytes are there."""
    data = b""
    while (least is None or len(data) < least) and (piece := os.read(0, _PIECE if least is None else least)):
        data += piece
    return data


def _of_directory(word: str, dockerfile: str) -> Source:
    directory = os.path.realpath(word)
    if dockerfile == "-":
        name = f".dockerfile.{secrets.token_hex(10)}"
        return Source(pack(directory, name, _read_input()), name)
    path = os.path.abspath(dockerfile or os.path.join(directory, _USUAL))
    if not dockerfile and not os.path.lexists(path) and os.path.lexists(path.lower()):
        path = os.path.join(directory, _USUAL.lower())
    ignore_file = f"{path}.dockerignore"
    folder, last = os.path.split(path)
    path = os.path.join(os.path.realpath(folder), last)
    if not os.path.exists(path):
        raise CommandError(
            f"{_PREPARE}unable to evaluate symlinks in Dockerfile path:"
            f" lstat {path}: no such file or directory"
        )
    inside = os.path.realpath(path).startswith(directory.rstrip("/") + "/")
    if inside and path.startswith(directory.rstrip("/") + "/"):
        name = os.path.relpath(path, directory)
        return Source(pack(directory, name, ignore_file=ignore_file), name)
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        raise CommandError(f"{_PREPARE}unable to open Dockerfile: {(error.strerror or '').lower()}") from None
    name = f".dockerfile.{secrets.token_hex(10)}"
    return Source(pack(directory, name, text, ignore_file), name)
