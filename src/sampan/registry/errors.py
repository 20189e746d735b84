"""What can go wrong between us and a registry.

RegistryError (500)          the base: a registry did not do what was asked
├── RegistryUnreachable      no connection, broken TLS, a stall, an answer that broke off too often
├── InvalidAnswer            the answer is not what the protocol says, or too large
└── TooManyRequests          429, after the attempts were used up
RegistryUnauthorized (401)   credentials are missing or refused
RegistryDenied (403)         known, and not allowed
NotInRegistry (404)          no such manifest, blob or repository
InvalidRegistryConfig (400)  a hosts.toml, a certificate directory or a setting that cannot be
DigestMismatch (400)         from `sampan.oci.digest`: the bytes are not the ones that were asked for

Each error of an answer carries what the registry said: HTTP status, the protocol's error code
(MANIFEST_UNKNOWN, DENIED, … ; OCI distribution spec, "Error Codes") and its message.
"""

from __future__ import annotations

from sampan.errors import Forbidden, InvalidParameter, NotFound, SampanError, Unauthorized


class RegistryError(SampanError):
    """A registry did not do what was asked.

    Attributes:
        http_status: of the registry's answer; 0 when there was none.
        code: the protocol's error code, "" when the registry gave none.
        detail: the registry's own words.
    """

    def __init__(self, message: str, http_status: int = 0, code: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.http_status = http_status
        self.code = code
        self.detail = detail


class RegistryUnreachable(RegistryError):
    """There is no connection to the registry, or none that holds."""


class InvalidAnswer(RegistryError):
    """The registry answers, but not as the protocol says."""


class TooManyRequests(RegistryError):
    """The registry wants fewer requests, and still did after waiting."""

    status = 429


class RegistryUnauthorized(RegistryError, Unauthorized):
    """Credentials are missing or refused."""

    status = 401


class RegistryDenied(RegistryError, Forbidden):
    """The registry knows who asks, and refuses."""

    status = 403


class NotInRegistry(RegistryError, NotFound):
    """The registry has no such manifest, blob or repository."""

    status = 404


class InvalidRegistryConfig(InvalidParameter):
    """What the administrator wrote about registries cannot be used."""
