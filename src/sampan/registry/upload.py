"""Blobs on their way to a registry (OCI distribution spec, "Pushing blobs").

A blob of known digest goes in one piece: POST for a session, PUT with all of it. When the network breaks off
in the midst, GET tells what has arrived, and the rest follows as a chunk: PATCH with `Content-Range`, PUT.
One whose digest is only known at its end (a layer that is compressed on the way) goes as a stream: POST,
PATCH, PUT. A blob that another repository of the registry has can be mounted from there and does not travel
at all.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO
from urllib.parse import quote

from sampan.oci.digest import check_digest
from sampan.oci.reference import Reference
from sampan.registry.answers import Answer
from sampan.registry.client import HostClient, OnRetry
from sampan.registry.config import RegistryConfig
from sampan.registry.errors import InvalidAnswer, RegistryError, RegistryUnreachable
from sampan.registry.transport import PIECE_BYTES, shown

_log = logging.getLogger("sampan.registry")

OnSent = Callable[[int], None]
_AGAIN = frozenset((408, 429, 500, 502, 503, 504))
_STILL_MOVING = frozenset((409, 416))  # what was sent before the break is still being taken in: ask again
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


class Uploads:
    """Uploads to one repository.

    Args:
        client: the address to push to.
        scopes: what the token must allow.
    """

    def __init__(
        self, client: HostClient, reference: Reference, scopes: tuple[str, ...], config: RegistryConfig
    ) -> None:
        self._client = client
        self._reference = reference
        self._scopes = scopes
        self._config = config

    def mount(self, digest: str, source: str) -> bool:
        """Take a blob over from another repository of the same registry.

        Args:
            source: that repository's path.

        Returns:
            whether the blob is here now.
        """
        scopes = (*self._scopes, f"repository:{source}:pull")
        query = f"?mount={quote(check_digest(digest), safe=':')}&from={quote(source, safe='/')}"
        location = self._begin(query, scopes)
        if location is None:
            return True
        self._client.request("DELETE", location, self._scopes).finish()  # it opened an upload instead
        return False

    def upload(
        self,
        digest: str,
        size: int,
        open_blob: Callable[[], BinaryIO],
        on_sent: OnSent | None = None,
        on_retry: OnRetry | None = None,
    ) -> None:
        """Send a blob in one piece, or what is left of it where an attempt before broke off.

        Args:
            open_blob: opens it at its start, for each attempt anew, and can seek; it is closed here.
            on_sent: told the bytes sent so far; what it raises ends the upload.

        Raises:
            RegistryError: the registry does not take it, or the network did not let it through.
        """
        broken = ""  # where an upload is that broke off

        def send(location: str, start: int) -> None:
            nonlocal broken
            broken = location
            with open_blob() as file:
                self._send(location, digest, size, start, lambda: _pieces(file, start, on_sent))

        def attempt() -> None:
            location, start = self._reached(broken, size) if broken else ("", 0)
            try:
                if start:
                    return send(location, start)
            except RegistryUnreachable:
                raise
            except RegistryError as error:
                if error.http_status in _STILL_MOVING:
                    raise RegistryUnreachable(error.message) from None
                _log.info("%s: from the beginning: %s", shown(location), error.message)
            return send(self._open(), 0)

        self._repeat(attempt, on_retry)

    def _send(
        self, location: str, digest: str, size: int, start: int, pieces: Callable[[], Iterator[bytes]]
    ) -> None:
        headers = {"Content-Length": str(size - start), "Content-Type": "application/octet-stream"}
        if start == 0:
            target = _with_digest(location, digest)
            self._completed(self._client.request("PUT", target, self._scopes, headers, pieces, attempts=1))
            return
        if start < size:
            headers["Content-Range"] = f"{start}-{size - 1}"
            location = self._patched(location, headers, pieces)
        self._close(location, digest)

    def _reached(self, location: str, size: int) -> tuple[str, int]:
        """Where an upload goes on, and how much of it has arrived; ("", 0) when it is to begin anew."""
        answer = self._client.request("GET", location, self._scopes)
        told = _RANGE.fullmatch(answer.header("range"))
        start = int(told[1]) + 1 if answer.status in (202, 204) and told else 0
        if not 1 < start <= size:  # the range of nothing and of one byte are written alike
            answer.finish()
            return "", 0
        if answer.header("location"):
            location = self._client.location(answer)
        answer.finish()
        return location, start

    def upload_stream(
        self,
        make: Callable[[], Iterable[bytes]],
        finish: Callable[[], str],
        on_retry: OnRetry | None = None,
    ) -> str:
        """Send a blob while it is made.

        Args:
            make: its pieces from the first on; called for each attempt anew.
            finish: the digest of what `make` gave last, once it is through.

        Returns:
            the digest.
        """
        digests: list[str] = []

        def attempt() -> None:
            location = self._patched(self._open(), {"Content-Type": "application/octet-stream"}, make)
            digest = finish()
            self._close(location, digest)
            digests.append(digest)

        self._repeat(attempt, on_retry)
        return digests[-1]

    def _patched(self, location: str, headers: dict[str, str], make: Callable[[], Iterable[bytes]]) -> str:
        """Send a chunk; where the upload goes on."""
        answer = self._client.request("PATCH", location, self._scopes, headers, make, attempts=1)
        if answer.status not in (200, 201, 202, 204):
            raise self._failed(answer)
        location = self._client.location(answer)
        answer.finish()
        return location

    def _close(self, location: str, digest: str) -> None:
        """Say that all has been sent."""
        target = _with_digest(location, digest)
        self._completed(
            self._client.request("PUT", target, self._scopes, {"Content-Length": "0"}, attempts=1)
        )

    def _repeat(self, attempt: Callable[[], None], on_retry: OnRetry | None) -> None:
        """Try as often as downloads are tried."""
        attempts = self._config.max_download_attempts
        for number in range(1, attempts + 1):
            try:
                attempt()
                return
            except RegistryError as error:
                passing = isinstance(error, RegistryUnreachable) or error.http_status in _AGAIN
                if not passing or number == attempts:
                    raise
                problem = error.message
            self._client.pause(number, problem, None, on_retry)

    def _open(self) -> str:
        """The location of a new upload."""
        location = self._begin("", self._scopes)
        assert location is not None
        return location

    def _begin(self, query: str, scopes: tuple[str, ...]) -> str | None:
        """The location of a new upload; None when a mount made it needless."""
        path = f"/{self._reference.path}/blobs/uploads/{query}"
        answer = self._client.request("POST", path, scopes, {"Content-Length": "0"})
        if answer.status == 201 and query:
            answer.finish()
            return None
        if answer.status != 202:
            raise self._failed(answer)
        location = self._client.location(answer)
        answer.finish()
        return location

    def _completed(self, answer: Answer) -> None:
        if answer.status not in (201, 204):
            raise self._failed(answer)
        answer.finish()

    def _failed(self, answer: Answer) -> RegistryError:
        if answer.status < 400:
            answer.close()
            return InvalidAnswer(f"{shown(answer.url)}: unexpected HTTP status {answer.status} for an upload")
        error = self._client.failure(answer)
        answer.close()
        return error


def _with_digest(location: str, digest: str) -> str:
    mark = "&" if "?" in location else "?"
    return f"{location}{mark}digest={quote(digest, safe='')}"


def _pieces(file: BinaryIO, start: int, on_sent: OnSent | None) -> Iterator[bytes]:
    file.seek(start)
    sent = start
    while piece := file.read(PIECE_BYTES * 4):
        yield piece
        sent += len(piece)
        if on_sent is not None:
            on_sent(sent)
