"""Reading and writing the one-value files of a cgroup: one open, one write, one close each."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable


def write(path: str, value: str) -> None:
    """Write `value` to a cgroup file that exists.

    Raises:
        OSError: names the file, the value, and what the kernel says.
    """
    write_each(path, (value,))


def write_each(path: str, values: Iterable[str]) -> None:
    """Write several values to one file, each by a write of its own, as the kernel takes one rule at a time.

    Raises:
        OSError: as `write`; the values before the refused one are set.
    """
    value = ""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for value in values:
                os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise explained(error, path, value) from None


def explained(error: OSError, path: str, value: str) -> OSError:
    """The kernel's refusal of a value, in words that name the file and the value."""
    code = error.errno or errno.EIO
    reason = os.strerror(code)
    if code == errno.ENOENT:
        reason = "this kernel does not offer it"
    what = f"to {value!r} " if value else ""
    return OSError(code, f"cannot set {os.path.basename(path)} {what}({reason})", path)


def read(path: str) -> str:
    """The file's text without white space around it.

    Raises:
        OSError: as open(2).
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode(errors="replace").strip()


def read_optional(path: str) -> str | None:
    """As `read`, but None when the file, or its cgroup, is not there."""
    try:
        return read(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return None
        raise


def read_number(path: str) -> int | None:
    """A file's one number; None when the file is not there or says "max"."""
    text = read_optional(path)
    return int(text) if text and text.lstrip("-").isdigit() else None


def read_table(path: str) -> dict[str, int]:
    """A file of `name number` lines; empty when it is not there."""
    table: dict[str, int] = {}
    for line in (read_optional(path) or "").splitlines():
        name, _, value = line.rpartition(" ")
        if value.isdigit():
            table[name] = int(value)
    return table
