"""Who asks a registry: Docker's `X-Registry-Auth` and `X-Registry-Config` headers, decoded.

The header is the base64url of a JSON object with `username`, `password`, `auth` (base64 of user:password),
`identitytoken`, `registrytoken` and `serveraddress` (Engine API, "Authentication"). Clients send padded and
unpadded, standard and URL alphabets.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import field
from typing import Any

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter

INDEX_SERVER = "https://index.docker.io/v1/"
_HUB = frozenset(("docker.io", "index.docker.io", "registry-1.docker.io"))
_HEADER_LIMIT = 256 << 10


@dataclass(frozen=True, slots=True)
class Credentials:
    """What proves who asks; all empty for an anonymous client.

    Attributes:
        identity_token: an OAuth2 refresh token, exchanged for tokens at the registry's token server.
        registry_token: a bearer token that is sent as it is.
        server: the registry as the client wrote it, such as https://index.docker.io/v1/ .
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    server: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything to prove with."""
        return bool(self.username or self.password or self.identity_token or self.registry_token)

    @classmethod
    def from_json(cls, value: Any) -> Credentials:
        """Credentials from an object as Docker's clients send it.

        Raises:
            InvalidParameter: it is not one.
        """
        if value is None:
            return cls()
        if not isinstance(value, dict):
            raise InvalidParameter("invalid registry credentials: expected an object")
        fields = {key.lower(): text for key, text in value.items() if text is not None}
        for key in ("username", "password", "auth", "identitytoken", "registrytoken", "serveraddress"):
            if not isinstance(fields.get(key, ""), str):
                raise InvalidParameter(f"invalid registry credentials: {key} must be a text")
        username, password = fields.get("username", ""), fields.get("password", "")
        if not username and fields.get("auth"):
            username, password = decode_basic(fields["auth"])
        return cls(
            username,
            password,
            fields.get("identitytoken", ""),
            fields.get("registrytoken", ""),
            fields.get("serveraddress", ""),
        )

    @classmethod
    def from_header(cls, header: str) -> Credentials:
        """Credentials from an `X-Registry-Auth` header; empty ones when there is no such header.

        Raises:
            InvalidParameter: it is not base64 of JSON.
        """
        return cls.from_json(_decode_header(header, "X-Registry-Auth"))


def from_config_header(header: str) -> dict[str, Credentials]:
    """Credentials by registry from an `X-Registry-Config` header, as a build sends them.

    Raises:
        InvalidParameter: it is not base64 of JSON.
    """
    value = _decode_header(header, "X-Registry-Config")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidParameter("invalid X-Registry-Config header: expected an object")
    return {registry_of(server): Credentials.from_json(entry) for server, entry in value.items()}


def registry_of(server: str) -> str:
    """The registry's host as references name it, from an address as `login` and config.json write it."""
    host = server.split("://", 1)[-1].split("/", 1)[0]
    return "docker.io" if host in _HUB or not host else host


def decode_basic(text: str) -> tuple[str, str]:
    """User and password from the base64 of `user:password`.

    Raises:
        InvalidParameter: it is not that.
    """
    try:
        user, colon, password = _from_base64(text).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
        user = password = ""
    if not colon:
        raise InvalidParameter("invalid registry credentials: auth is not base64 of user:password")
    return user, password.strip("\0")


def _decode_header(header: str, name: str) -> Any:
    if not header:
        return None
    if len(header) > _HEADER_LIMIT:
        raise InvalidParameter(f"invalid {name} header: it has more than {_HEADER_LIMIT} bytes")
    try:
        data = _from_base64(header)
        return json.loads(data) if data.strip() else None
    except (binascii.Error, ValueError, RecursionError):
        raise InvalidParameter(f"invalid {name} header: it is not base64 of JSON") from None


def _from_base64(text: str) -> bytes:
    letters = text.strip().rstrip("=").replace("+", "-").replace("/", "_")
    return base64.b64decode(letters + "=" * (-len(letters) % 4), altchars=b"-_", validate=True)
