"""Blobs on their way to a registry (OCI distribution spec, "Pushing blobs").

A blob of known digest goes in one piece: POST for a session, PUT with all of it. One whose digest is only
known at its end (a layer that is compressed on the way) goes as a stream: POST, PATCH, PUT. A blob that
another repository of the registry has can be mounted from there and does not travel at all.
"""

from __future__ import annotations

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

OnSent = Callable[[int], None]
_AGAIN = frozenset((408, 429, 500, 502, 503, 504))


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
        """Send a blob in one piece.

        Args:
            open_blob: opens it at its start, for each attempt anew; it is closed here.
            on_sent: told the bytes sent so far; what it raises ends the upload.

        Raises:
            RegistryError: the registry does not take it, or the network did not let it through.
        """

        def attempt(location: str) -> None:
            with open_blob() as file:
                answer = self._client.request(
                    "PUT",
                    _with_digest(location, digest),
                    self._scopes,
                    {"Content-Length": str(size), "Content-Type": "application/octet-stream"},
                    lambda: _pieces(file, on_sent),
                    attempts=1,
                )
                self._completed(answer)

        self._repeat(attempt, on_retry)

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

        def attempt(location: str) -> None:
            answer = self._client.request(
                "PATCH",
                location,
                self._scopes,
                {"Content-Type": "application/octet-stream"},
                make,
                attempts=1,
            )
            if answer.status not in (200, 201, 202, 204):
                raise self._failed(answer)
            location = self._client.location(answer)
            answer.finish()
            digest = finish()
            answer = self._client.request(
                "PUT", _with_digest(location, digest), self._scopes, {"Content-Length": "0"}, attempts=1
            )
            self._completed(answer)
            digests.append(digest)

        self._repeat(attempt, on_retry)
        return digests[-1]

    def _repeat(self, attempt: Callable[[str], None], on_retry: OnRetry | None) -> None:
        """Try with a fresh session each time, as often as downloads are tried."""
        attempts = self._config.max_download_attempts
        for number in range(1, attempts + 1):
            try:
                location = self._begin("", self._scopes)
                assert location is not None
                attempt(location)
                return
            except RegistryError as error:
                passing = isinstance(error, RegistryUnreachable) or error.http_status in _AGAIN
                if not passing or number == attempts:
                    raise
                problem = error.message
            self._client.pause(number, problem, None, on_retry)

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


def _pieces(file: BinaryIO, on_sent: OnSent | None) -> Iterator[bytes]:
    sent = 0
    while piece := file.read(PIECE_BYTES * 4):
        yield piece
        sent += len(piece)
        if on_sent is not None:
            on_sent(sent)
