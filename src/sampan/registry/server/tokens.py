"""Docker's token authentication: bearer tokens of an authorization service, JSON web tokens (RFC 7519).

The challenge names the service (`realm`), and what is wanted (`scope`); the token names what is granted
(claim `access`). The key comes with the token as a certificate chain (`x5c`) that a certificate of our bundle
has signed, or is named (`kid`) and is one of the bundle's own.
https://distribution.github.io/distribution/spec/auth/jwt/
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
from sampan.registry.server.access import Access, Wanted, fingerprint
from sampan.registry.server.faults import Unauthorized

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

log = logging.getLogger("sampan.registry.server")

ALGORITHMS = ("ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "EdDSA")
_LEEWAY_S = 60
_TOKEN_LIMIT_BYTES = 64 << 10
_CHAIN_LIMIT = 8
_REMEMBER_LIMIT = 10_000
_REMEMBER_S = 60.0


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """Where clients get their tokens, and whose are believed.

    Attributes:
        realm: the authorization service's URL.
        service: our name there, the token's audience.
        issuer: the service's name in its tokens.
        bundle: PEM certificates that sign its keys, or its own.
    """

    realm: str
    service: str
    issuer: str
    bundle: Path


class Tokens:
    """A `Guard` that believes the tokens of one authorization service.

    Raises:
        InvalidParameter: the bundle cannot be used.
    """

    def __init__(self, settings: TokenSettings) -> None:
        self._settings = settings
        for name in ("realm", "service", "issuer"):
            value = getattr(settings, name)
            if not value or '"' in value or not value.isprintable():
                raise InvalidParameter(f"token {name}: {value!r} cannot be used")
        self._roots = _read_bundle(settings.bundle)
        self._named: dict[str, Any] = {}
        for root in self._roots:
            self._named.update(dict.fromkeys(key_ids(root), root.public_key()))
        self._known: dict[bytes, tuple[float, Access]] = {}

    async def check(self, authorization: str, wanted: list[Wanted]) -> Access:
        """See `Guard`."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise self._refusal("authentication required", wanted)
        try:
            access = await self._access(token.strip())
        except _Refused as reason:
            log.info("a token was refused: %s", reason)
            raise self._refusal(f"invalid token: {reason}", wanted, "invalid_token") from None
        if not all(access.allows(one) for one in wanted):
            raise self._refusal(
                "access to the requested resource is not authorized", wanted, "insufficient_scope"
            )
        return access

    def _refusal(self, message: str, wanted: Sequence[Wanted], error: str = "") -> Unauthorized:
        parts = [f'realm="{self._settings.realm}"', f'service="{self._settings.service}"']
        actions: dict[tuple[str, str], list[str]] = {}
        for one in wanted:
            actions.setdefault((one.kind, one.name), []).append(one.action)
        if actions:
            scopes = " ".join(f"{kind}:{name}:{','.join(all_)}" for (kind, name), all_ in actions.items())
            parts.append(f'scope="{scopes}"')
        if error:
            parts.append(f'error="{error}"')
        detail = [{"Type": one.kind, "Name": one.name, "Action": one.action} for one in wanted]
        return Unauthorized(message, detail, {"WWW-Authenticate": f"Bearer {','.join(parts)}"})

    async def _access(self, token: str) -> Access:
        key = fingerprint(token)
        known = self._known.get(key)
        if known is not None and known[0] > time.time():
            return known[1]
        until, access = await asyncio.to_thread(self._verify, token)
        if len(self._known) > _REMEMBER_LIMIT:
            self._known.clear()
        self._known[key] = min(until, time.time() + _REMEMBER_S), access
        return access

    def _verify(self, token: str) -> tuple[float, Access]:
        import jwt

        if len(token) > _TOKEN_LIMIT_BYTES:
            raise _Refused("it is too long")
        try:
            key = self._key(jwt.get_unverified_header(token))
            claims = jwt.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._settings.service,
                issuer=self._settings.issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud"], "verify_iat": False, "verify_sub": False},
            )
        except jwt.InvalidTokenError as error:
            raise _Refused(str(error)) from None
        except RecursionError:
            raise _Refused("it is nested too deeply") from None
        subject = claims.get("sub")
        return float(claims["exp"]) + _LEEWAY_S, Access(
            subject if isinstance(subject, str) else "", frozenset(_granted(claims.get("access")))
        )

    def _key(self, header: dict[str, Any]) -> Any:
        chain = header.get("x5c")
        if chain:
            if not isinstance(chain, list) or len(chain) > _CHAIN_LIMIT:
                raise _Refused("its x5c is not a chain of certificates")
            return _trusted_key(chain, self._roots)
        name = header.get("kid")
        key = self._named.get(name) if isinstance(name, str) else None
        if key is None:
            raise _Refused("its key is not known here")
        return key


class _Refused(Exception):
    """Why a token is not believed."""


def _read_bundle(path: Path) -> list[Certificate]:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise InvalidParameter(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise InvalidParameter(f"{path}: no PEM certificates: {error}") from None
    return found


def _trusted_key(chain: list[Any], roots: list[Certificate]) -> Any:
    """The key of the first certificate, when the chain leads to one of `roots`."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        certificates = [
            x509.load_der_x509_certificate(base64.b64decode(item, validate=True)) for item in chain
        ]
    except (ValueError, TypeError):
        raise _Refused("its x5c is not a chain of certificates") from None
    now = datetime.datetime.now(datetime.UTC)
    leaf = certificates[0]
    for number, certificate in enumerate(certificates):
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise _Refused("a certificate of its chain is not valid now")
        if number and not _may_sign(certificate):
            raise _Refused("a certificate of its chain is no authority")
        for root in roots:
            if certificate == root:
                return leaf.public_key()
            try:
                certificate.verify_directly_issued_by(root)
            except (ValueError, TypeError, InvalidSignature):
                continue
            if root.not_valid_before_utc <= now <= root.not_valid_after_utc and _may_sign(root):
                return leaf.public_key()
        if number + 1 < len(certificates):
            try:
                certificate.verify_directly_issued_by(certificates[number + 1])
            except (ValueError, TypeError, InvalidSignature):
                break
    raise _Refused("its certificate is not signed by an authority of the bundle")


def _may_sign(certificate: Certificate) -> bool:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def key_ids(certificate: Certificate) -> list[str]:
    """The names by which tokens may call a certificate's key: libtrust's fingerprint, the hex SHA-256."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    der = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashlib.sha256(der).digest()
    text = base64.b32encode(digest[:30]).decode().rstrip("=")
    return [":".join(text[start : start + 4] for start in range(0, len(text), 4)), digest.hex()]


def _granted(access: Any) -> list[tuple[str, str, str]]:
    granted: list[tuple[str, str, str]] = []
    for item in access if isinstance(access, list) else []:
        actions = item.get("actions") if isinstance(item, dict) else None
        kind, name = (item.get("type"), item.get("name")) if isinstance(item, dict) else (None, None)
        if isinstance(kind, str) and isinstance(name, str) and isinstance(actions, list):
            granted += [(kind, name, action) for action in actions if isinstance(action, str)]
    return granted
