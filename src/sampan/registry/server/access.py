"""Who may do what: nobody is asked, or Basic with an htpasswd file (RFC 7617, bcrypt), or Docker's tokens.

A guard looks at a request's `Authorization` before its handler runs, with the list of what the request is
going to do; it returns what the client may do, or raises the challenge that tells it how to get there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import os
import secrets
import threading
import time
from pathlib import Path
from typing import Protocol

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
from sampan.registry.server.faults import Unauthorized

log = logging.getLogger("sampan.registry.server")

_REMEMBER_S = 300.0
_REMEMBER_LIMIT = 10_000
_RELOAD_S = 1.0
_BCRYPT = ("$2a$", "$2b$", "$2y$")
_PASSWORD_LIMIT_BYTES = 72  # what bcrypt looks at


@dataclass(frozen=True, slots=True)
class Wanted:
    """One thing that a request is going to do.

    Attributes:
        kind: "repository" or "registry".
        name: which one; "catalog" for the list of all.
        action: "pull", "push", "delete" or "*".
    """

    kind: str
    name: str
    action: str


CATALOG = Wanted("registry", "catalog", "*")


@dataclass(frozen=True, slots=True)
class Access:
    """What a client may do; `granted` None is everything."""

    user: str = ""
    granted: frozenset[tuple[str, str, str]] | None = None

    def allows(self, wanted: Wanted) -> bool:
        """Whether it may do this."""
        if self.granted is None:
            return True
        return any((wanted.kind, wanted.name, action) in self.granted for action in (wanted.action, "*"))


class Guard(Protocol):
    """Checks requests."""

    async def check(self, authorization: str, wanted: list[Wanted]) -> Access:
        """What the client may do.

        Raises:
            Unauthorized: not what it wants to do; with the challenge.
        """
        ...


class Open:
    """Everybody may do everything."""

    async def check(self, authorization: str, wanted: list[Wanted]) -> Access:
        """See `Guard`."""
        return Access()


class Passwords:
    """Everybody in an htpasswd file may do everything. The file is read again when it changes.

    Args:
        path: lines of `user:hash`, hashes by bcrypt (`htpasswd -B`).
        realm: told to clients.

    Raises:
        InvalidParameter: the file cannot be read, or has another kind of hash; the message says where.
    """

    def __init__(self, path: Path, realm: str) -> None:
        self._path = path
        self._challenge = {"WWW-Authenticate": f'Basic realm="{realm}"'}
        self._users: dict[str, bytes] = {}
        self._stamp: tuple[int, int, int] | None = None
        self._looked = 0.0
        # bcrypt takes tens of milliseconds by design; who was right a moment ago need not wait again.
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, float] = {}
        self._nobody = b""
        self._lock = threading.Lock()
        self._load()

    def _load(self) -> None:
        try:
            found = self._path.stat()
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp:
                return
            users = _read_htpasswd(self._path)
        except OSError as error:
            raise InvalidParameter(f"{self._path}: {error.strerror}") from None
        self._users, self._stamp, self._right = users, stamp, {}

    def _reload(self) -> None:
        now = time.monotonic()
        if now - self._looked < _RELOAD_S:
            return
        self._looked = now
        try:
            self._load()
        except InvalidParameter as error:
            log.error("%s; the users of before stay", error.message)

    async def check(self, authorization: str, wanted: list[Wanted]) -> Access:
        """See `Guard`."""
        self._reload()
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "basic":
            raise Unauthorized("authentication required", _detail(wanted), self._challenge)
        try:
            user, colon, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            user, colon, password = "", "", ""
        if not colon or not await self._is_right(user, password):
            log.info("user %r was refused: wrong name or password", user[:100])
            raise Unauthorized("authentication required", _detail(wanted), self._challenge)
        return Access(user)

    async def _is_right(self, user: str, password: str) -> bool:
        stored = self._users.get(user)
        mark = hmac.digest(self._key, b"\0".join((user.encode(), password.encode(), stored or b"")), "sha256")
        now = time.monotonic()
        if stored is not None and self._right.get(mark, 0.0) > now:
            return True
        right = await asyncio.to_thread(self._compare, stored, password.encode())
        if right:
            if len(self._right) > _REMEMBER_LIMIT:
                self._right.clear()
            self._right[mark] = now + _REMEMBER_S
        return right

    def _compare(self, stored: bytes | None, password: bytes) -> bool:
        import bcrypt

        with self._lock:  # one at a time: guessing must not take all processors
            if stored is None and not self._nobody:
                self._nobody = bcrypt.hashpw(os.urandom(16).hex().encode(), bcrypt.gensalt(10))
            try:
                # An unknown name takes as long as a wrong password.
                same = bcrypt.checkpw(password[:_PASSWORD_LIMIT_BYTES], stored or self._nobody)
            except ValueError:
                return False
        return same and stored is not None


def _read_htpasswd(path: Path) -> dict[str, bytes]:
    users: dict[str, bytes] = {}
    for number, raw in enumerate(path.read_text(errors="surrogateescape").splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        user, colon, stored = line.partition(":")
        if not colon or not user:
            raise InvalidParameter(f"{path}, line {number}: expected user:hash")
        if not stored.startswith(_BCRYPT):
            raise InvalidParameter(
                f"{path}, line {number}: the hash of {user!r} is not bcrypt's: make it with htpasswd -B"
            )
        users[user] = stored.encode("utf-8", "surrogateescape")
    return users


def _detail(wanted: list[Wanted]) -> list[dict[str, str]]:
    return [{"Type": one.kind, "Name": one.name, "Action": one.action} for one in wanted]


def fingerprint(text: str) -> bytes:
    """A key for a memory of tokens."""
    return hashlib.sha256(text.encode()).digest()
