"""Content digests: `algorithm:hex` (OCI image spec 1.1, descriptor, "Digests")."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable

from sampan.errors import InvalidParameter

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
EMPTY_SHA256 = "sha256:" + hashlib.sha256().hexdigest()


class DigestMismatch(InvalidParameter):
    """The bytes are not the ones that their digest names."""


def is_digest(text: str) -> bool:
    """Whether `text` is a complete sha256 digest, the one algorithm that images use."""
    return _SHA256.fullmatch(text) is not None


def check_digest(text: object, what: str = "digest") -> str:
    """`text` itself when it is a complete sha256 digest.

    Args:
        text: any value, often straight from JSON.
        what: how to name it in the message.

    Raises:
        InvalidParameter: for anything else.
    """
    if not isinstance(text, str) or not is_digest(text):
        raise InvalidParameter(f"invalid {what}: {str(text)[:80]!r} (expected sha256: and 64 hex digits)")
    return text


def hex_of(digest: str) -> str:
    """The hex digits of a digest."""
    return digest.partition(":")[2]


def sha256(data: bytes) -> str:
    """The digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def chain_ids(diff_ids: Iterable[str]) -> list[str]:
    """The chain id at each layer, lowest first (image spec, config, "Layer ChainID")."""
    return list(_chain(tuple(diff_ids)))


@functools.lru_cache(1024)  # lists of images ask again and again
def _chain(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(sha256(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)
