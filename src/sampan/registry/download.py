"""A blob on its way from a registry: one stream to its reader, however often the connection breaks.

After a break the rest is asked for with `Range` (RFC 9110, 14.2). A server that answers with the whole blob
instead is read from the start again, and what the reader already has is thrown away. Bytes beyond the size
that the descriptor tells are never passed on.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from types import TracebackType

from sampan.oci.digest import DigestMismatch
from sampan.oci.image import Descriptor
from sampan.registry.answers import Answer
from sampan.registry.client import LONGEST_WAIT_S, HostClient, OnRetry
from sampan.registry.errors import InvalidAnswer, RegistryError, RegistryUnreachable
from sampan.registry.transport import PIECE_BYTES, shown

OnProgress = Callable[[int], None]

_PROGRESS_THAT_COUNTS_BYTES = 1 << 20
_MIRROR_ATTEMPTS = 2
_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(?:\d{1,19}|\*)")


class Download:
    """The bytes of a blob. Use as a context, or `close` it.

    Args:
        clients: the addresses to ask, in order; the last one is the registry itself.
        path: the blob's, below `/v2`.
        attempts: how often in a row the last address may fail before a piece of 1 MiB has come.
        on_progress: told the bytes passed on so far; what it raises ends the download.
        on_retry: told the seconds before a further attempt.
        verify: check the digest at the end; False for a reader who hashes himself.
    """

    def __init__(
        self,
        clients: Sequence[HostClient],
        path: str,
        descriptor: Descriptor,
        scopes: tuple[str, ...],
        attempts: int,
        on_progress: OnProgress | None = None,
        on_retry: OnRetry | None = None,
        verify: bool = True,
    ) -> None:
        self._clients = list(clients)
        self._path = path
        self._descriptor = descriptor
        self._scopes = scopes
        self._attempts = attempts
        self._on_progress = on_progress
        self._on_retry = on_retry
        self._hash = hashlib.sha256() if verify else None
        self._answer: Answer | None = None
        self._failures = 0
        self._mark = 0
        self.offset = 0

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most `size`; b"" at the end.

        Raises:
            RegistryError: the blob is not there, or cannot be had after all attempts.
            DigestMismatch: it is longer than announced or, when verified, not the one that was asked for.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE_BYTES), b""))
        while True:
            left = self._descriptor.size - self.offset
            try:
                if self._answer is None and (left or not self.offset):
                    self._answer = self._open()
                if self._answer is None:
                    return b""
                if not left:
                    self._check_end()
                    return b""
                data = self._answer.some(min(size, left))
                if not data:
                    raise RegistryUnreachable(f"{shown(self._answer.url)}: unexpected EOF")
            except RegistryError as error:
                self._recover(error)
                continue
            self._took(data)
            return data

    def _took(self, data: bytes) -> None:
        self.offset += len(data)
        if self._hash is not None:
            self._hash.update(data)
        if self._on_progress is not None:
            self._on_progress(self.offset)

    def _check_end(self) -> None:
        answer, self._answer = self._answer, None
        if answer is None:
            return
        descriptor = self._descriptor
        extra = answer.some(1)
        if extra:
            answer.close()
            raise DigestMismatch(f"{descriptor.digest} has more than the {descriptor.size} bytes announced")
        if self._hash is not None and f"sha256:{self._hash.hexdigest()}" != descriptor.digest:
            raise DigestMismatch(
                f"{shown(answer.url)}: the content has the digest sha256:{self._hash.hexdigest()}"
            )

    # --- connections ---

    def _open(self) -> Answer:
        client = self._clients[0]
        headers = {"Range": f"bytes={self.offset}-"} if self.offset else {}
        answer = client.request("GET", self._path, self._scopes, headers, attempts=1)
        if answer.status >= 400:
            retry_after = answer.retry_after_s()
            error = client.failure(answer)
            answer.close()
            raise _Refused(error, retry_after) if error.http_status in _PASSING else error
        try:
            answer.check_encoding()
            skip = self._bytes_to_skip(answer)
            while skip:
                data = answer.some(min(skip, PIECE_BYTES))
                if not data:
                    raise RegistryUnreachable(f"{shown(answer.url)}: unexpected EOF")
                skip -= len(data)
        except BaseException:
            answer.close()
            raise
        return answer

    def _bytes_to_skip(self, answer: Answer) -> int:
        """How much of this answer the reader has already."""
        size, start = self._descriptor.size, 0
        if answer.status == 206:
            match = _RANGE.fullmatch(answer.header("content-range").strip())
            if match is None or int(match[1]) > self.offset:
                raise InvalidAnswer(f"{shown(answer.url)}: the answer is not the range that was asked for")
            start = int(match[1])
        elif answer.status != 200:
            raise InvalidAnswer(f"{shown(answer.url)}: unexpected HTTP status {answer.status} for a blob")
        if answer.length is not None and answer.length + start != size:
            raise InvalidAnswer(
                f"{shown(answer.url)}: the registry has {answer.length + start} bytes, but the manifest says"
                f" {size}"
            )
        return self.offset - start

    def _recover(self, error: RegistryError) -> None:
        """Decide what follows a failure: wait and try again, the next address, or the end."""
        self.close()
        refused = error if isinstance(error, _Refused) else None
        wait = refused.retry_after_s if refused else None
        passing = isinstance(error, (RegistryUnreachable, _Refused)) and (wait or 0) <= LONGEST_WAIT_S
        if self.offset - self._mark >= _PROGRESS_THAT_COUNTS_BYTES:
            self._failures = 0
        self._mark = self.offset
        self._failures += 1
        last = len(self._clients) == 1
        if passing and self._failures < (self._attempts if last else min(self._attempts, _MIRROR_ATTEMPTS)):
            self._clients[0].pause(self._failures, error.message, wait, self._on_retry)
        elif not last:
            self._clients.pop(0)
            self._failures = 0
        else:
            raise (refused.error if refused else error) from None

    def close(self) -> None:
        """Let the connection go."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def __enter__(self) -> Download:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_PASSING = frozenset((408, 429, 500, 502, 503, 504))


class _Refused(RegistryError):
    """An answer that may be another one a little later."""

    def __init__(self, error: RegistryError, retry_after_s: float | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry_after_s = retry_after_s
