"""Proving who asks: Basic, and bearer tokens from a registry's token server.

A registry's 401 names a scheme in `WWW-Authenticate` (RFC 9110, 11.6.1). `Basic` gets the credentials,
`Bearer` a token that is fetched from `realm` for `service` and the scopes of this repository
(https://distribution.github.io/distribution/spec/auth/token/ and …/oauth/). Tokens are kept until shortly
before they expire. Credentials go to the registry that they are for and to the token server that it names,
to that one over TLS when the registry itself has TLS.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode, urlsplit

from sampan.dataclasses import dataclass
from sampan.registry.credentials import Credentials
from sampan.registry.errors import InvalidAnswer, RegistryError, RegistryUnauthorized
from sampan.registry.transport import shown

CLIENT_ID = "sampan"
TOKEN_LIMIT_BYTES = 64 << 10
_DEFAULT_LIFE_S = 60.0
_LONGEST_LIFE_S = 86400.0
_KEPT = 512
_TOKEN = re.compile(r"[\x21-\x7e]+")
_CHALLENGE = re.compile(
    r"""\s*(?P<name>[A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:
        \s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s,"]*))\s*(?:,|$)
        |(?=\s|,|$),?
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry wants: a scheme in lower case, and for bearer where to get the token."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def parse_challenges(header: str) -> list[Challenge]:
    """The challenges of a `WWW-Authenticate` header; what cannot be read is left out."""
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while position < len(header):
        match = _CHALLENGE.match(header, position)
        if match is None or match.end() == position:
            break
        position = match.end()
        name = match["name"].lower()
        value = match["plain"] if match["quoted"] is None else re.sub(r"\\(.)", r"\1", match["quoted"])
        if value is None:
            found.append((name, {}))
        elif found:
            found[-1][1].setdefault(name, value)
    return [
        Challenge(scheme, fields.get("realm", ""), fields.get("service", ""), fields.get("scope", ""))
        for scheme, fields in found
    ]


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What a token server said: status and JSON object."""

    status: int
    value: dict[str, Any]
    detail: str


# (method, url, headers, form body) -> answer
Fetch = Callable[[str, str, dict[str, str], bytes | None], TokenAnswer]


@dataclass(slots=True)
class _Token:
    text: str
    good_until: float


class TokenCache:
    """Tokens of all registries, by server, credentials and scopes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[tuple[Any, ...], _Token] = {}

    def get(self, key: tuple[Any, ...]) -> str | None:
        """A token that is still good."""
        with self._lock:
            token = self._tokens.get(key)
            if token is None or token.good_until > time.monotonic():
                return token.text if token else None
            del self._tokens[key]
            return None

    def put(self, key: tuple[Any, ...], text: str, life_s: float) -> None:
        """Keep a token; it counts as expired a little before it is."""
        margin = min(10.0, life_s / 2)
        with self._lock:
            while len(self._tokens) >= _KEPT:
                del self._tokens[next(iter(self._tokens))]
            self._tokens[key] = _Token(text, time.monotonic() + life_s - margin)

    def drop(self, key: tuple[Any, ...], refused: str) -> None:
        """Forget a token, if it is the one that was refused (as an `Authorization` header)."""
        with self._lock:
            token = self._tokens.get(key)
            if token is not None and refused == f"Bearer {token.text}":
                del self._tokens[key]


class Authorizer:
    """Makes the `Authorization` header for one registry and one set of credentials.

    Args:
        credentials: empty for an anonymous client.
        cache: where tokens are kept.
        fetch: asks a token server.
        offline: ask for a refresh token too, which `refresh_token` then tells.
    """

    def __init__(
        self, credentials: Credentials, cache: TokenCache, fetch: Fetch, offline: bool = False
    ) -> None:
        self._credentials = credentials
        self._cache = cache
        self._fetch = fetch
        self._challenge: Challenge | None = None
        self._offline = offline
        self.refresh_token = ""
        self._lock = threading.Lock()

    @property
    def credentials(self) -> Credentials:
        """Whom we prove to be."""
        return self._credentials

    def header(self, scopes: tuple[str, ...], url: str) -> str:
        """What to send with a request for `scopes`; "" when nothing is known to be wanted.

        Raises:
            RegistryUnauthorized: the token server refuses.
            RegistryError: the token server does not do its work.
        """
        challenge = self._challenge
        if challenge is None:
            return ""
        if challenge.scheme == "basic":
            return self._basic()
        return f"Bearer {self._token(challenge, scopes, url)}"

    def challenged(self, header: str, scopes: tuple[str, ...], url: str, sent: str) -> bool:
        """Take note of a 401.

        Args:
            header: its `WWW-Authenticate`.
            sent: the `Authorization` that was refused, "" for none.

        Returns:
            whether to try once more, with another header.
        """
        for challenge in parse_challenges(header):
            if challenge.scheme == "bearer" and challenge.realm:
                if self._credentials.registry_token and sent:
                    return False
                self._cache.drop(self._key(challenge, self._wanted(challenge, scopes)), sent)
                self._challenge = challenge
                return True
            if challenge.scheme == "basic":
                self._challenge = challenge
                return bool(self._basic()) and sent != self._basic()
        return False

    def _basic(self) -> str:
        if not self._credentials.username:
            return ""
        pair = f"{self._credentials.username}:{self._credentials.password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"

    def _wanted(self, challenge: Challenge, scopes: tuple[str, ...]) -> tuple[str, ...]:
        return scopes or tuple(challenge.scope.split())

    def _key(self, challenge: Challenge, scopes: tuple[str, ...]) -> tuple[Any, ...]:
        return challenge.realm, challenge.service, self._credentials, scopes

    def _token(self, challenge: Challenge, scopes: tuple[str, ...], url: str) -> str:
        if self._credentials.registry_token:
            return self._credentials.registry_token
        wanted = self._wanted(challenge, scopes)
        key = self._key(challenge, wanted)
        with self._lock:  # one request for a token, however many blobs wait for it
            known = self._cache.get(key)
            if known is not None:
                return known
            text, life_s = self._fetch_token(challenge, wanted, url)
            self._cache.put(key, text, life_s)
            return text

    def _fetch_token(self, challenge: Challenge, scopes: tuple[str, ...], url: str) -> tuple[str, float]:
        realm, credentials = challenge.realm, self._credentials
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise InvalidAnswer(
                f"{shown(url)}: the registry's token server {shown(realm)!r} is no valid address"
            )
        if credentials and parts.scheme == "http" and url.startswith("https:"):
            raise RegistryUnauthorized(
                f"{shown(url)}: the registry wants the credentials at {shown(realm)}, without TLS:"
                " they are not sent there"
            )
        if credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "service": challenge.service,
                "client_id": CLIENT_ID,
                "scope": " ".join(scopes),
                "refresh_token": credentials.identity_token,
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._fetch("POST", realm, headers, urlencode(form).encode())
        else:
            query: list[tuple[str, str]] = []
            if challenge.service:
                query.append(("service", challenge.service))
            query += [("scope", scope) for scope in scopes]
            if credentials.username:
                query += [("account", credentials.username), ("client_id", CLIENT_ID)]
            if self._offline:
                query.append(("offline_token", "true"))
            basic = self._basic()
            target = f"{realm}{'&' if parts.query else '?'}{urlencode(query)}" if query else realm
            answer = self._fetch("GET", target, {"Authorization": basic} if basic else {}, None)
        refresh = answer.value.get("refresh_token")
        if self._offline and isinstance(refresh, str) and len(refresh) <= TOKEN_LIMIT_BYTES:
            self.refresh_token = refresh
        return _read_token(answer, realm)


def _read_token(answer: TokenAnswer, realm: str) -> tuple[str, float]:
    if answer.status in (400, 401, 403):
        detail = answer.detail or "incorrect username or password"
        raise RegistryUnauthorized(detail, answer.status, "UNAUTHORIZED", detail)
    if not 200 <= answer.status < 300:
        raise RegistryError(
            f"the token server {shown(realm)} answers with status {answer.status}: {answer.detail}".rstrip(
                ": "
            ),
            answer.status,
        )
    token = answer.value.get("token") or answer.value.get("access_token")
    if not isinstance(token, str) or len(token) > TOKEN_LIMIT_BYTES or not _TOKEN.fullmatch(token):
        raise InvalidAnswer(f"the token server {shown(realm)} did not include a token in its answer")
    life = answer.value.get("expires_in")
    if not isinstance(life, (int, float)) or isinstance(life, bool) or life <= 0:
        life = _DEFAULT_LIFE_S
    return token, min(max(float(life), 1.0), _LONGEST_LIFE_S)
