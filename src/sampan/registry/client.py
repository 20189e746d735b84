"""Requests to one address of a registry: authorization, redirects, repeated attempts, https with http behind.

What is sent to whom: `Authorization` and the headers of hosts.toml go to the address itself and never along
with a redirect to another scheme, host or port; a registry with TLS cannot send us on to a place without.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import urljoin, urlsplit

from sampan.registry.answers import Answer
from sampan.registry.auth import Authorizer, TokenAnswer, TokenCache
from sampan.registry.config import RegistryConfig
from sampan.registry.credentials import Credentials
from sampan.registry.errors import (
    InvalidAnswer,
    RegistryError,
    RegistryUnauthorized,
    RegistryUnreachable,
)
from sampan.registry.hosts import Endpoint
from sampan.registry.transport import Body, NoConnection, Transport, shown

_log = logging.getLogger("sampan.registry")

REDIRECTS = 10
LONGEST_WAIT_S = 60.0
SMALL_ATTEMPTS = 3
_TOKEN_ANSWER_LIMIT_BYTES = 1 << 20
_MOVED = frozenset((301, 302, 303, 307, 308))
_MOVED_AS_IT_IS = frozenset((307, 308))  # with method and body: RFC 9110, sections 15.4.8 and 15.4.9
_AGAIN = frozenset((408, 429, 500, 502, 503, 504))
_PORTS = {"http": 80, "https": 443}

OnRetry = Callable[[float], None]
MakeBody = Callable[[], Body]


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of a URL: what credentials are bound to."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme, 0)


class HostClient:
    """One address of a registry, for one client's credentials.

    Args:
        plain: the addresses that turned out to speak plain HTTP only; shared by all clients.
        offline: ask for a refresh token too (a login).
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Credentials,
        transport: Transport,
        config: RegistryConfig,
        tokens: TokenCache,
        plain: dict[str, bool],
        offline: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self._transport = transport
        self._config = config
        self._plain = plain
        self._authorizer = Authorizer(
            credentials if endpoint.is_origin else Credentials(), tokens, self._ask_token_server, offline
        )

    @property
    def base(self) -> str:
        """The address up to `/v2`, by the scheme that is known to work."""
        if self.endpoint.plain_fallback and self._plain.get(self.endpoint.url):
            return "http:" + self.endpoint.url.removeprefix("https:")
        return self.endpoint.url

    def request(
        self,
        method: str,
        path: str,
        scopes: tuple[str, ...] = (),
        headers: Mapping[str, str] | None = None,
        body: MakeBody | None = None,
        attempts: int = SMALL_ATTEMPTS,
        on_retry: OnRetry | None = None,
    ) -> Answer:
        """Send a request until there is an answer that is not the network's or the server's trouble.

        Args:
            path: below `/v2`, beginning with a slash; or a whole URL (a `Location` that the registry gave).
            scopes: what the token must allow, such as "repository:library/busybox:pull".
            body: makes the body, for each attempt and redirect anew.
            attempts: how often to try at most.
            on_retry: told the seconds before each further attempt; what it raises ends the request.

        Returns:
            an answer of any status that is not a redirect; status 429 and 5xx only after the last attempt.

        Raises:
            RegistryUnreachable: there is no connection, or none that holds.
            RegistryUnauthorized: the token server refuses the credentials.
            InvalidAnswer: redirects that go round or where they may not.
        """
        for attempt in range(1, attempts + 1):
            wait: float | None = None
            try:
                answer = self._authorized(method, path, scopes, headers or {}, body)
                if answer.status not in _AGAIN or attempt == attempts:
                    return answer
                wait = answer.retry_after_s()
                if wait is not None and wait > LONGEST_WAIT_S:
                    return answer
                problem = f"status {answer.status}"
                answer.finish()
            except NoConnection:
                raise
            except RegistryUnreachable as error:
                if attempt == attempts:
                    raise
                problem = error.message
            self.pause(attempt, problem, wait, on_retry)
        raise AssertionError("at least one attempt")

    def pause(self, attempt: int, problem: str, wait_s: float | None, on_retry: OnRetry | None) -> None:
        """Wait before another attempt: as long as the registry wants, or twice as long each time."""
        seconds = wait_s if wait_s is not None else min(self._config.retry_delay_s * 2 ** (attempt - 1), 30.0)
        _log.info("%s: trying again in %.1f s: %s", self.endpoint.host, seconds, problem)
        if on_retry is not None:
            on_retry(seconds)
        time.sleep(seconds)

    def _authorized(
        self,
        method: str,
        path: str,
        scopes: tuple[str, ...],
        headers: Mapping[str, str],
        body: MakeBody | None,
    ) -> Answer:
        for last in (False, True):
            url = self._url(path)
            sent = self._authorizer.header(scopes, url) if self._is_ours(url) else ""
            answer = self._followed(method, path, sent, headers, body)
            if answer.status != 401 or last or not self._is_ours(answer.url):
                break
            if not self._authorizer.challenged(answer.header("www-authenticate"), scopes, answer.url, sent):
                break
            answer.finish()
        return answer

    def _url(self, path: str) -> str:
        if not path.startswith("/"):
            return path
        url = self.base + path
        if self.endpoint.namespace:
            url += f"{'&' if '?' in path else '?'}ns={self.endpoint.namespace}"
        return url

    def _is_ours(self, url: str) -> bool:
        return origin_of(url) == origin_of(self.base)

    def _followed(
        self, method: str, path: str, authorization: str, headers: Mapping[str, str], body: MakeBody | None
    ) -> Answer:
        answer = self._once(method, path, authorization, headers, body)
        hops = 0
        while answer.status in (_MOVED if method in ("GET", "HEAD") else _MOVED_AS_IT_IS):
            hops += 1
            if hops > REDIRECTS:
                answer.close()
                raise InvalidAnswer(f"{shown(answer.url)}: stopped after {REDIRECTS} redirects")
            target = self.location(answer)
            answer.finish()
            answer = self._once(method, target, authorization, headers, body)
        return answer

    def location(self, answer: Answer) -> str:
        """Where an answer's `Location` points.

        Raises:
            InvalidAnswer: nowhere, or from TLS to a place without.
        """
        text = answer.header("location")
        target = urljoin(answer.url, text)
        parts = urlsplit(target)
        if not text or parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            answer.close()
            raise InvalidAnswer(
                f"{shown(answer.url)}: the answer's Location {shown(text)[:200]!r} leads nowhere"
            )
        if answer.url.startswith("https:") and parts.scheme == "http" and not self.endpoint.plain_fallback:
            answer.close()
            raise InvalidAnswer(
                f"{shown(answer.url)}: the registry sends us on to {shown(target)}, without TLS: refused"
            )
        return target

    def _once(
        self, method: str, path: str, authorization: str, headers: Mapping[str, str], body: MakeBody | None
    ) -> Answer:
        url = self._url(path)
        undecided = self.endpoint.plain_fallback and self.endpoint.url not in self._plain
        if undecided and url.startswith(self.endpoint.url):
            try:
                answer = self._send(method, url, authorization, headers, body)
            except RegistryUnreachable as error:
                _log.info("%s: no https (%s): trying http", self.endpoint.host, error.message)
                plain = "http:" + url.removeprefix("https:")
                answer = self._send(method, plain, authorization, headers, body)
                self._plain[self.endpoint.url] = True
                return answer
            self._plain[self.endpoint.url] = False
            return answer
        try:
            return self._send(method, url, authorization, headers, body)
        except NoConnection:
            self._plain.pop(self.endpoint.url, None)  # it may come back with the other scheme
            raise

    def _send(
        self, method: str, url: str, authorization: str, headers: Mapping[str, str], body: MakeBody | None
    ) -> Answer:
        sent = dict(headers)
        tls = self.endpoint.tls
        if origin_of(url)[1:] == origin_of(self.endpoint.url)[1:] and self._scheme_fits(url):
            sent.update(self.endpoint.headers)
            if authorization:
                sent["Authorization"] = authorization
        else:
            tls = replace(tls, client=())
        response = self._transport.request(
            method, url, sent, body() if body is not None else None, tls, self.endpoint.connect_timeout_s
        )
        return Answer(response, method, url, self._config.stall_timeout_s)

    def _scheme_fits(self, url: str) -> bool:
        return self.endpoint.plain_fallback or url.startswith(self.endpoint.url.partition(":")[0] + ":")

    def _ask_token_server(
        self, method: str, url: str, headers: dict[str, str], form: bytes | None
    ) -> TokenAnswer:
        """One request to a token server; redirects are refused, as they would carry the credentials away."""
        tls = self.endpoint.tls
        if origin_of(url) != origin_of(self.base):
            tls = replace(tls, client=())
        for attempt in range(1, SMALL_ATTEMPTS + 1):
            try:
                response = self._transport.request(method, url, headers, form, tls)
                answer = Answer(response, method, url, self._config.stall_timeout_s)
                if answer.status not in _AGAIN or attempt == SMALL_ATTEMPTS:
                    break
                problem = f"status {answer.status}"
                answer.finish()
            except NoConnection:
                raise
            except RegistryUnreachable as error:
                if attempt == SMALL_ATTEMPTS:
                    raise
                problem = error.message
            self.pause(attempt, problem, None, None)
        if answer.status in _MOVED:
            answer.close()
            raise InvalidAnswer(f"the token server {shown(url)} answers with a redirect: refused")
        if answer.status >= 400:
            return TokenAnswer(answer.status, {}, answer.error().detail)
        return TokenAnswer(answer.status, answer.json(_TOKEN_ANSWER_LIMIT_BYTES), "")

    @property
    def refresh_token(self) -> str:
        """What the token server gave to keep instead of a password; "" for nothing."""
        return self._authorizer.refresh_token

    # --- errors ---

    def failure(self, answer: Answer) -> RegistryError:
        """An answer of status 400 or above as an error; it knows when credentials were lacking."""
        error = answer.error()
        wants_basic = "basic" in answer.header("www-authenticate").lower()
        if answer.status == 401 and wants_basic and not self._authorizer.credentials:
            return RegistryUnauthorized("no basic auth credentials", 401, error.code, error.detail)
        return error
