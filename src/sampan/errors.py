"""The exception tree: every error that may reach a user, and the API status each one carries.

    SampanError                 500  something failed that should not have
    ├── NotModified             304  the object is already in the state that was asked for
    ├── InvalidParameter        400  the request is wrong; the message says what to change
    ├── Unauthorized            401  the registry or the daemon wants other credentials
    ├── Forbidden               403  understood, and refused
    ├── NotFound                404  no such object
    ├── Conflict                409  the object's present state, or another object, stands in the way
    ├── Unsupported             501  a real option of Docker's that this version does not offer
    └── Unavailable             503  cannot be done now

Packages derive their own, more telling classes from these. A message is one line: what is wrong, and, where
it can be known, what to do. The kernel's own refusals stay `OSError` until a package knows what they mean.
"""

from __future__ import annotations


class SampanError(Exception):
    """Base of all errors meant for a user. `status` is the HTTP status of Docker's API."""

    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotModified(SampanError):
    """The object is already as asked; clients treat it as success."""

    status = 304


class InvalidParameter(SampanError):
    """The request itself is wrong."""

    status = 400


class Unauthorized(SampanError):
    """Credentials are missing or refused."""

    status = 401


class Forbidden(SampanError):
    """The request is understood and refused."""

    status = 403


class NotFound(SampanError):
    """No such object."""

    status = 404


class Conflict(SampanError):
    """The present state of this object or of another one stands in the way."""

    status = 409


class Unsupported(SampanError):
    """An option of Docker's that this version does not offer; refused by name, never ignored."""

    status = 501


class Unavailable(SampanError):
    """Cannot be done at this moment."""

    status = 503
