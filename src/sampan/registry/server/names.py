"""The grammar of repository names, tags and digests in paths (OCI distribution spec, "Pulling manifests").

Everything that becomes a file name or a key has passed through here.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from sampan.registry.server.faults import DigestInvalid, NameInvalid, TagInvalid

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

NAME_LIMIT = 255
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_LENGTHS = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(sha256|sha512):([0-9a-f]+)")
_DIGEST_LIKE = re.compile(r"[A-Za-z0-9+._-]+:[A-Za-z0-9=_-]+")
ALGORITHMS = tuple(_LENGTHS)


def check_name(text: str) -> str:
    """`text` itself, when it can name a repository.

    Raises:
        NameInvalid: it cannot.
    """
    if len(text) > NAME_LIMIT or _NAME.fullmatch(text) is None:
        raise NameInvalid("invalid repository name", {"name": text[:NAME_LIMIT]})
    return text


def is_digest(text: str) -> bool:
    """Whether `text` is a whole digest of an algorithm that is known here."""
    found = _DIGEST.fullmatch(text)
    return found is not None and len(found[2]) == _LENGTHS[found[1]]


def check_digest(text: str) -> str:
    """`text` itself, when it is a sha256 or sha512 digest.

    Raises:
        DigestInvalid: it is not.
    """
    if not is_digest(text):
        raise DigestInvalid(
            "invalid digest: expected sha256: and 64, or sha512: and 128 hexadecimal digits",
            {"digest": text[:200]},
        )
    return text


def check_reference(text: str) -> str:
    """`text` itself, when it is a tag or a digest.

    Raises:
        DigestInvalid: it is a digest, but not a good one.
        TagInvalid: it is neither.
    """
    if _DIGEST_LIKE.fullmatch(text):
        return check_digest(text)
    if _TAG.fullmatch(text) is None:
        raise TagInvalid("invalid tag", {"tag": text[:200]})
    return text


def hash_for(digest: str) -> Hash:
    """A fresh hash of the digest's algorithm."""
    return hashlib.new(digest.partition(":")[0])


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """The digest of `data`."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
