"""Image names as people write them, checked and split into name, tag and digest (distribution reference)."""

from __future__ import annotations

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_HEX = frozenset("0123456789abcdef")
_TAG = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_BAD = "invalid reference format"


def split(text: str) -> tuple[str, str, str]:
    """(name, tag, digest) of a reference; tag and digest may be empty.

    Raises:
        ValueError: not a reference, in docker's words.
    """
    rest, at, digest = text.partition("@")
    if at and not _is_digest(digest):
        raise ValueError(_BAD)
    name, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        name, tag = rest, ""
    elif not tag or len(tag) > 128 or not _TAG.issuperset(tag) or tag[0] in ".-":
        raise ValueError(_BAD)
    if not name:
        raise ValueError(_BAD)
    first, slash, path = name.partition("/")
    domain = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    if not domain:
        path = name
    if path != path.lower():
        shown = (path if slash else f"library/{path}").partition(":")[0]
        raise ValueError(f"{_BAD}: repository name ({shown}) must be lowercase")
    if len(name) == 64 and _HEX.issuperset(name):
        raise ValueError(f"invalid repository name ({name}), cannot specify 64-byte hexadecimal strings")
    if not all(_is_component(part) for part in path.split("/")):
        raise ValueError(_BAD)
    return name, tag, digest


def _is_component(part: str) -> bool:
    if not part or part[0] not in _LOWER or part[-1] not in _LOWER:
        return False
    run = ""
    for one in part:
        if one in _LOWER:
            if run and run not in (".", "_", "__") and run.strip("-"):
                return False
            run = ""
        elif one in "._-":
            run += one
        else:
            return False
    return True


def _is_digest(text: str) -> bool:
    algorithm, colon, value = text.partition(":")
    return bool(colon and algorithm.isalnum() and len(value) >= 32 and _HEX.issuperset(value))


def is_id(text: str) -> bool:
    """Whether the text can only be an image id."""
    return len(text) == 64 and _HEX.issuperset(text)


def full(name: str, tag: str, digest: str) -> str:
    """The reference with its registry spelled out: `busybox`, `1` is `docker.io/library/busybox:1`."""
    first, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif first in ("docker.io", "index.docker.io"):
        rest = name.partition("/")[2]
        name = f"docker.io/{rest}" if "/" in rest else f"docker.io/library/{rest}"
    elif not ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        name = f"docker.io/{name}"
    return name + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def familiar(text: str) -> str:
    """The reference with its default tag: `busybox` is `busybox:latest`."""
    name, tag, digest = split(text)
    if digest:
        return text
    return f"{name}:{tag or 'latest'}"
