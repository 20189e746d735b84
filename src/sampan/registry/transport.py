"""HTTP to registries by urllib3: pooled connections, TLS, proxies; one request, no redirects, no retries.

urllib3 is imported with the first request: a daemon that speaks to no registry should not carry it.
Redirects, authorization and repeated attempts are decided above, in `client`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import ssl
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from sampan import __version__, outside
from sampan.registry.config import RegistryConfig
from sampan.registry.errors import InvalidRegistryConfig, RegistryUnreachable
from sampan.registry.hosts import Tls

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

USER_AGENT = f"sampan/{__version__}"
PIECE_BYTES = 256 << 10
_SYSTEM_AUTHORITIES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)

Body = bytes | IO[bytes] | Iterable[bytes]


class NoConnection(RegistryUnreachable):
    """There was no connection, or no TLS: nothing of the request has arrived."""


class Transport:
    """Connections to any number of hosts, kept for further requests. Every call may come from any thread."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._pools: dict[tuple[Tls, str], PoolManager] = {}

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: Body | None = None,
        tls: Tls | None = None,
        connect_timeout_s: float | None = None,
    ) -> BaseHTTPResponse:
        """Send one request; the answer's body is still to be read, and then closed or read to its end.

        Raises:
            NoConnection: nothing was sent.
            RegistryUnreachable: the connection broke, or the other side fell silent.
        """
        import urllib3
        from urllib3 import exceptions

        timeout = urllib3.Timeout(
            connect=connect_timeout_s or self._config.connect_timeout_s, read=self._config.stall_timeout_s
        )
        sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
        try:
            return self._pool(url, tls or Tls()).request(
                method,
                url,
                headers=sent,
                body=body,
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (
            exceptions.NewConnectionError,
            exceptions.SSLError,
            exceptions.ProxyError,
            exceptions.LocationParseError,
        ) as error:
            raise NoConnection(_failed(method, url, _reason(error))) from None
        except exceptions.ConnectTimeoutError:  # a base class of NewConnectionError
            raise NoConnection(_failed(method, url, "no connection: i/o timeout")) from None
        except exceptions.ReadTimeoutError:
            seconds = self._config.stall_timeout_s
            raise RegistryUnreachable(_failed(method, url, f"no answer within {seconds:g} s")) from None
        except (exceptions.HTTPError, OSError, ValueError) as error:
            raise RegistryUnreachable(_failed(method, url, _reason(error))) from None

    def close(self) -> None:
        """Close idle connections; further requests open new ones."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
        for pool in pools:
            pool.clear()

    def _pool(self, url: str, tls: Tls) -> PoolManager:
        proxy = self._config.proxies.for_url(url)
        with self._lock:
            known = self._pools.get((tls, proxy))
            if known is None:
                known = self._pools[tls, proxy] = _make_pool(tls, proxy)
            return known


def _make_pool(tls: Tls, proxy: str) -> PoolManager:
    import urllib3
    from urllib3.util import parse_url

    logging.getLogger("urllib3").setLevel(logging.WARNING)  # it logs whole URLs, with signatures in them
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the administrator has said so
    if outside.elsewhere():  # it has no other door for connections that are made in another way
        urllib3.util.connection.create_connection = outside.create_connection
    context = _default_context() if tls == Tls() else _context(tls)
    options: dict[str, Any] = {"maxsize": 16, "ssl_context": context, "blocksize": PIECE_BYTES}
    if not proxy:
        return urllib3.PoolManager(8, **options)
    secret = parse_url(proxy).auth
    headers = urllib3.make_headers(proxy_basic_auth=secret) if secret else None
    return urllib3.ProxyManager(proxy, 8, proxy_headers=headers, **options)


@functools.cache
def _default_context() -> ssl.SSLContext:
    """The context of all hosts without settings of their own: authorities take memory, and time to load."""
    return _context(Tls())


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if tls.verify:
        context.load_default_certs()
        if not context.cert_store_stats()["x509_ca"]:
            for path in filter(Path.exists, map(Path, _SYSTEM_AUTHORITIES)):
                with contextlib.suppress(OSError, ssl.SSLError):
                    context.load_verify_locations(path)
                    break
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in tls.authorities:
        try:
            context.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise InvalidRegistryConfig(f"{path}: cannot be used as an authority: {error}") from None
    for certificate, key in tls.client:
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidRegistryConfig(
                f"{certificate}: cannot be used as client certificate: {error}"
            ) from None
    return context


def shown(url: str) -> str:
    """A URL without what may be secret in it: user, password, query (signed storage links have it there)."""
    address = url.partition("?")[0]
    scheme, mark, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


def _failed(method: str, url: str, reason: str) -> str:
    return f'{method.title()} "{shown(url)}": {reason}'


def _reason(error: BaseException) -> str:
    """The innermost cause in words."""
    inner: BaseException = error
    for _ in range(8):
        causes = (getattr(inner, "reason", None), inner.__cause__, *inner.args)
        cause = next((item for item in causes if isinstance(item, BaseException)), None)
        if cause is None:
            break
        inner = cause
    if isinstance(inner, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: {inner.verify_message}"
    if isinstance(inner, ssl.SSLError):
        return f"tls: {inner.reason or inner}".replace("_", " ").lower()
    if isinstance(inner, OSError) and inner.strerror:
        return f"connect: {inner.strerror.lower()}"
    text = str(inner)
    return text.partition(": ")[2] or text if text.startswith("<") else text or type(inner).__name__
