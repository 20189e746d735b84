"""Any file of the web, for `docker import URL`: the same transport, proxies and trust as for registries."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from sampan.errors import InvalidParameter
from sampan.registry.answers import Answer
from sampan.registry.errors import RegistryError, RegistryUnreachable
from sampan.registry.transport import PIECE_BYTES, Transport, shown

REDIRECTS = 10
_DETAIL_BYTES = 300


class WebFile:
    """A file that is being fetched; `length` is its size in bytes when the server tells."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._got = 0
        self.length = answer.length

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most `size`; b"" at the end.

        Raises:
            RegistryUnreachable: the connection broke, fell silent, or ended early.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(PIECE_BYTES), b""))
        data = self._answer.some(size) if size else b""
        self._got += len(data)
        if size and not data and self.length is not None and self._got < self.length:
            raise RegistryUnreachable(f'Get "{shown(self._answer.url)}": unexpected EOF')
        return data

    def header(self, name: str) -> str:
        """A header's value, "" when it is not there."""
        return self._answer.header(name)

    def close(self) -> None:
        """Let go of the connection."""
        self._answer.close()


def fetch(transport: Transport, url: str, stall_timeout_s: float) -> WebFile:
    """Begin to fetch an http or https URL (http when it names no scheme), through redirects.

    Raises:
        InvalidParameter: it is no such URL.
        RegistryUnreachable: the server cannot be reached.
        RegistryError: it has no such file, or sends us round in circles.
    """
    url = url if "://" in url else f"http://{url}"
    for _ in range(REDIRECTS + 1):
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:
            parts, host = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not host:
            raise InvalidParameter(f"invalid URL {shown(url)!r}: only http and https are fetched")
        answer = Answer(transport.request("GET", url, {}), "GET", url, stall_timeout_s)
        target = answer.header("location")
        if answer.status in (301, 302, 303, 307, 308) and target:
            answer.close()
            url = urljoin(url, target)
            continue
        if answer.status != 200:
            detail = answer.some(_DETAIL_BYTES).decode("utf-8", "replace").strip()
            answer.close()
            raise RegistryError(
                f"failed to GET {shown(url)} with status {answer.status}: {' '.join(detail.split())}",
                answer.status,
            )
        answer.check_encoding()
        return WebFile(answer)
    raise RegistryError(f"{shown(url)}: stopped after {REDIRECTS} redirects")
