"""Which versions of the Engine API are spoken, and how a request says which one it means."""

from __future__ import annotations

import re
from typing import NamedTuple

from sampan.errors import InvalidParameter


class ApiVersion(NamedTuple):
    """A version such as 1.41; compares as numbers do, also with plain tuples."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


NEWEST = ApiVersion(1, 51)
OLDEST = ApiVersion(1, 24)

_PREFIX = re.compile(r"/v([0-9.]+)(?=/|$)")
_NUMBER = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?")


def split_version(path: str) -> tuple[ApiVersion, str]:
    """Take the version prefix off a path.

    Args:
        path: the decoded path of a request, such as `/v1.41/containers/json`.

    Returns:
        The version asked for (the newest when the path names none) and the rest of the path.

    Raises:
        InvalidParameter: a version outside of what is spoken here, in Docker's words.
    """
    prefix = _PREFIX.match(path)
    if prefix is None:
        return NEWEST, path
    text = prefix[1]
    number = _NUMBER.fullmatch(text)
    if number is None:
        raise InvalidParameter(f"invalid API version {text!r}: it looks like {NEWEST}")
    version = ApiVersion(int(number[1]), int(number[2]))
    if version < OLDEST:
        raise InvalidParameter(
            f"client version {text} is too old. Minimum supported API version is {OLDEST}, "
            "please upgrade your client to a newer version"
        )
    if version > NEWEST:
        raise InvalidParameter(f"client version {text} is too new. Maximum supported API version is {NEWEST}")
    return version, path[prefix.end() :] or "/"
