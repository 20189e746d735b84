"""What a registry refuses, in the protocol's words (OCI distribution spec, "Error Codes").

Each class is one code with its HTTP status. Those below the line are distribution's own, which clients know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sampan.errors import SampanError


class Fault(SampanError):
    """An error answer of the registry.

    Args:
        message: one line: what is wrong, and what to do.
        detail: any JSON that helps a program.
        headers: further headers of the answer.
    """

    code = "UNKNOWN"

    def __init__(self, message: str, detail: Any = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.detail = detail
        self.headers = dict(headers or {})


class BlobUnknown(Fault):
    """The repository has no such blob."""

    code, status = "BLOB_UNKNOWN", 404


class UploadInvalid(Fault):
    """The upload cannot go on like this."""

    code, status = "BLOB_UPLOAD_INVALID", 400


class UploadBusy(UploadInvalid):
    """Another request writes to this upload."""

    status = 409


class TooSlow(UploadInvalid):
    """The client sends next to nothing."""

    status = 408


class UploadUnknown(Fault):
    """There is no such upload, or not any more."""

    code, status = "BLOB_UPLOAD_UNKNOWN", 404


class DigestInvalid(Fault):
    """Not a digest, or not the digest of what was sent."""

    code, status = "DIGEST_INVALID", 400


class ManifestBlobUnknown(Fault):
    """A manifest names what the repository does not have."""

    code, status = "MANIFEST_BLOB_UNKNOWN", 404


class ManifestInvalid(Fault):
    """The manifest is none."""

    code, status = "MANIFEST_INVALID", 400


class ManifestUnknown(Fault):
    """The repository has no such manifest."""

    code, status = "MANIFEST_UNKNOWN", 404


class NameInvalid(Fault):
    """Not a name for a repository."""

    code, status = "NAME_INVALID", 400


class NameUnknown(Fault):
    """There is no such repository."""

    code, status = "NAME_UNKNOWN", 404


class SizeInvalid(Fault):
    """Content-Length and what was sent differ."""

    code, status = "SIZE_INVALID", 400


class TooLarge(SizeInvalid):
    """More than this registry takes."""

    status = 413


class Unauthorized(Fault):
    """Credentials are missing or refused; `WWW-Authenticate` says which are wanted."""

    code, status = "UNAUTHORIZED", 401


class Denied(Fault):
    """Understood, and refused."""

    code, status = "DENIED", 403


class Unsupported(Fault):
    """This registry does not do that."""

    code, status = "UNSUPPORTED", 405


class TooManyRequests(Fault):
    """Later, please."""

    code, status = "TOOMANYREQUESTS", 429


# --- distribution's own ---


class TagInvalid(Fault):
    """Neither a tag nor a digest."""

    code, status = "TAG_INVALID", 400


class RangeInvalid(Fault):
    """The range does not continue the upload, or lies outside of the blob."""

    code, status = "RANGE_INVALID", 416


class PageInvalid(Fault):
    """`n` is not a number of entries."""

    code, status = "PAGINATION_NUMBER_INVALID", 400


class Unavailable(Fault):
    """Cannot be done at this moment."""

    code, status = "UNAVAILABLE", 503


class UpstreamFailed(Fault):
    """The registry that this one is a cache of does not answer as it should."""

    code, status = "UNAVAILABLE", 502
