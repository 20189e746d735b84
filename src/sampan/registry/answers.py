"""Answers of a registry: bodies read up to a limit, and errors turned into ours (OCI distribution spec)."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from sampan.registry.errors import (
    InvalidAnswer,
    NotInRegistry,
    RegistryDenied,
    RegistryError,
    RegistryUnauthorized,
    RegistryUnreachable,
    TooManyRequests,
)
from sampan.registry.transport import shown

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

ERROR_LIMIT_BYTES = 64 << 10
JSON_LIMIT_BYTES = 4 << 20
_PIECE_BYTES = 64 << 10
_DETAIL_LENGTH = 500
_SLOWEST_BYTES = 1024


class Answer:
    """A response of which the head has arrived.

    Attributes:
        url: where it came from, after redirects.
        status: its HTTP status.
    """

    def __init__(self, response: BaseHTTPResponse, method: str, url: str, stall_timeout_s: float) -> None:
        self._response = response
        self._method = method
        self._stall_timeout_s = stall_timeout_s
        self._window_start = time.monotonic()
        self._window_bytes = 0
        self.url = url
        self.status = response.status

    def header(self, name: str) -> str:
        """A header's value, "" when it is not there."""
        return self._response.headers.get(name, "")

    @property
    def length(self) -> int | None:
        """The announced length of the body in bytes.

        Raises:
            InvalidAnswer: the header is no number.
        """
        text = self.header("content-length")
        if not text:
            return None
        if not (text.isascii() and text.isdigit()):
            raise InvalidAnswer(f"{shown(self.url)}: invalid Content-Length {text[:40]!r}")
        return int(text)

    def check_encoding(self) -> None:
        """Refuse a body in a content encoding: none was asked for, and digests are of the bytes themselves.

        Raises:
            InvalidAnswer: it is in one.
        """
        encoding = self.header("content-encoding").strip().lower()
        if encoding not in ("", "identity"):
            self.close()
            raise InvalidAnswer(
                f"{shown(self.url)}: the answer has the Content-Encoding {encoding[:40]!r},"
                " which nobody asked for"
            )

    def some(self, most: int) -> bytes:
        """The next bytes of the body, at least one; b"" at its end.

        Raises:
            RegistryUnreachable: the connection broke, fell silent, or brings next to nothing.
        """
        from urllib3 import exceptions

        try:
            data = self._response.read1(most)
        except exceptions.ReadTimeoutError:
            raise self._broken(f"no data for {self._stall_timeout_s:g} s") from None
        except (exceptions.HTTPError, OSError, ValueError) as error:
            early = "IncompleteRead" in str(error)  # urllib3 wraps it
            raise self._broken("unexpected EOF" if early else "the connection broke off") from None
        self._window_bytes += len(data)
        now = time.monotonic()
        if data and now - self._window_start > self._stall_timeout_s:
            if self._window_bytes < _SLOWEST_BYTES:
                raise self._broken(f"only {self._window_bytes} bytes in {self._stall_timeout_s:g} s")
            self._window_start, self._window_bytes = now, 0
        return data

    def _broken(self, reason: str) -> RegistryUnreachable:
        self.close()
        return RegistryUnreachable(f'{self._method.title()} "{shown(self.url)}": {reason}')

    def body(self, limit_bytes: int) -> bytes:
        """The whole body.

        Raises:
            InvalidAnswer: it has more than `limit_bytes`, or a content encoding.
            RegistryUnreachable: the connection broke.
        """
        self.check_encoding()
        length = self.length
        parts: list[bytes] = []
        total = 0
        while length is None or length <= limit_bytes:
            data = self.some(_PIECE_BYTES)
            if not data:
                return b"".join(parts)
            parts.append(data)
            total += len(data)
            if total > limit_bytes:
                break
        self.close()
        raise InvalidAnswer(
            f"{shown(self.url)}: the answer has {length or f'at least {total}'} bytes, more than the limit of"
            f" {limit_bytes}"
        )

    def json(self, limit_bytes: int = JSON_LIMIT_BYTES) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            InvalidAnswer: it is none, or too large.
        """
        try:
            value = json.loads(self.body(limit_bytes))
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise InvalidAnswer(f"{shown(self.url)}: the answer is not a JSON object")
        return value

    def finish(self) -> None:
        """Read a short rest, so that the connection can be used again; cut a long one off."""
        try:
            left = ERROR_LIMIT_BYTES
            while left > 0:
                data = self.some(_PIECE_BYTES)
                if not data:
                    return
                left -= len(data)
        except RegistryError:
            return
        self.close()

    def close(self) -> None:
        """Give the connection up."""
        self._response.close()

    def error(self) -> RegistryError:
        """This answer, of status 400 or above, as an error with the registry's own words."""
        code, text = self._words()
        status = self.status
        if status == 401:
            return RegistryUnauthorized(text or "unauthorized: authentication required", status, code, text)
        if status == 403:
            return RegistryDenied(
                text or "denied: requested access to the resource is denied", status, code, text
            )
        if status == 404:
            return NotInRegistry(text or f"{shown(self.url)}: not found", status, code, text)
        if status == 429:
            return TooManyRequests(text or "toomanyrequests: too many requests", status, code, text)
        import http  # seldom needed, and dear

        try:
            phrase = http.HTTPStatus(status).phrase
        except ValueError:
            phrase = ""
        unexpected = f"{shown(self.url)}: received unexpected HTTP status: {status} {phrase}".rstrip()
        return RegistryError(text or unexpected, status, code, text)

    def _words(self) -> tuple[str, str]:
        """Error code and message of the body, in one line, as Docker shows them."""
        try:
            data = b"" if self._method == "HEAD" else self.body(ERROR_LIMIT_BYTES)
        except RegistryError:
            return "", ""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return "", ""
        if not isinstance(value, dict):
            return "", ""
        errors = value.get("errors")
        found = [item for item in errors if isinstance(item, dict)] if isinstance(errors, list) else []
        lines = []
        for item in found:
            code, message = str(item.get("code") or ""), str(item.get("message") or "")
            lines.append(": ".join(filter(None, (code.lower().replace("_", " "), message))))
        if not found and isinstance(value.get("details"), str):  # what token servers say
            lines = [value["details"]]
        text = "".join(letter if letter.isprintable() else " " for letter in "; ".join(lines))
        return str(found[0].get("code") or "") if found else "", text[:_DETAIL_LENGTH]

    def retry_after_s(self) -> float | None:
        """How long the registry wants us to wait, None when it does not say (RFC 9110, 10.2.3)."""
        text = self.header("retry-after").strip()
        if not text:
            return None
        if text.isascii() and text.isdigit():
            return float(text[:9])
        from email.utils import parsedate_to_datetime

        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        return max(0.0, moment.timestamp() - time.time())
