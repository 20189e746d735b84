"""The composition root of a registry: opens the store, wires it to HTTP, serves, collects, leaves cleanly."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import resource
import signal
import socket
import ssl
from contextlib import AsyncExitStack
from pathlib import Path

from sampan import __version__
from sampan.errors import InvalidParameter, SampanError
from sampan.http import server_context
from sampan.readiness import notify, ready
from sampan.registry.server.access import Guard, Open, Passwords
from sampan.registry.server.app import App, RegistryServer
from sampan.registry.server.collector import Collector
from sampan.registry.server.control import serve_control
from sampan.registry.server.options import DEFAULT_PORT, Settings
from sampan.registry.server.store import Store
from sampan.registry.server.tokens import Tokens
from sampan.stopping import stop_on_signals

log = logging.getLogger("sampan.registry.server")

WORKERS = 32
HOUSEKEEPING_S = 60.0
BACKLOG = 1024


class Service:
    """One running registry.

    Args:
        settings: what the command line decided.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stop = asyncio.Event()
        self._collecting = asyncio.Lock()
        self._tasks: set[asyncio.Task[dict[str, float]]] = set()

    async def run(self) -> None:
        """Start, serve until told to stop, stop.

        Raises:
            SampanError: the start failed.
        """
        settings = self.settings
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(WORKERS, "work"))
        _raise_descriptor_limit()
        context = None
        if settings.certificate or settings.key:
            context = server_context(settings.certificate, settings.key, settings.client_authority)
        elif settings.client_authority:
            raise InvalidParameter("--tls-client-ca needs --tls-certificate and --tls-key")
        guard = make_guard(settings)
        async with AsyncExitStack() as undo:
            sockets = [sock for address in settings.listen for sock in bind(address)]
            for sock in sockets:
                undo.callback(sock.close)
            store = await asyncio.to_thread(Store, settings.root, settings.limits)
            undo.callback(store.close)
            undo.push_async_callback(self._collecting.acquire)  # not while a collection is running
            source, closed = None, "this registry is read-only" if settings.read_only else ""
            if settings.proxy is not None:
                from sampan.registry.server.mirror import Mirror

                source = Mirror(store, settings.proxy)
                undo.push_async_callback(asyncio.to_thread, source.close)
                closed = f"this registry is a cache of {settings.proxy.url}: push there"
            app = App(
                store,
                guard,
                source,
                closed,
                settings.deletable,
                settings.with_page,
            )
            collector = Collector(store, settings.untagged, settings.proxy.keep_s if settings.proxy else 0.0)
            self._store, self._collector, self._context = store, collector, context
            self._handle_signals(loop)
            control = await serve_control(settings.root, self._collect)
            undo.push_async_callback(control.stop, 1.0)
            server = RegistryServer(app)
            undo.push_async_callback(server.stop, settings.drain_s)
            for sock in sockets:
                await server.listen(sock, context)
            housekeeping = asyncio.ensure_future(self._keep_house())
            undo.callback(housekeeping.cancel)
            urls = [_url(sock, context) for sock in sockets]
            log.info("sampan registry %s serves %s at %s", __version__, settings.root, ", ".join(urls))
            _warn(settings, sockets, context)
            gc.collect()
            gc.freeze()
            ready(settings.ready_fd)
            await self._stop.wait()
            notify("STOPPING=1")

    # --- housekeeping ---

    async def _keep_house(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + self.settings.gc_interval_s
        while True:
            pause = HOUSEKEEPING_S
            if self.settings.gc_interval_s:
                pause = max(0.0, min(pause, due - loop.time()))
            await asyncio.sleep(pause)
            try:
                await asyncio.to_thread(self._store.uploads.expire)
                if self._store.touches_overflow:
                    await asyncio.to_thread(self._store.flush_touches)
                if self.settings.gc_interval_s and loop.time() >= due:
                    due = loop.time() + self.settings.gc_interval_s
                    await self._collect(None)
            except Exception as error:  # the next round may do better
                log.error("housekeeping: %s", error, exc_info=error)

    async def _collect(self, untagged: bool | None) -> dict[str, float]:
        async with self._collecting:
            work = asyncio.ensure_future(asyncio.to_thread(self._collector.collect, untagged))
            try:
                report = await asyncio.shield(work)
            finally:
                if not work.done():  # cancelled: the thread goes on, and the lock is its
                    await asyncio.wait((work,))
        return report.as_json()

    # --- signals ---

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        stop_on_signals(loop, self._stop, log)
        loop.add_signal_handler(signal.SIGUSR1, self._on_collect)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)

    def _on_reload(self) -> None:
        """A certificate that was renewed; new connections get it."""
        settings = self.settings
        if self._context is None:
            log.info("SIGHUP: there is no certificate to read again")
            return
        try:
            server_context(settings.certificate, settings.key, settings.client_authority)
            self._context.load_cert_chain(settings.certificate, settings.key)
        except (SampanError, OSError) as error:
            log.error("SIGHUP: the certificate of before stays: %s", error)
        else:
            log.info("SIGHUP: %s is in use", settings.certificate)

    def _on_collect(self) -> None:
        task = asyncio.ensure_future(self._collect(None))
        self._tasks.add(task)
        task.add_done_callback(self._collected)

    def _collected(self, task: asyncio.Task[dict[str, float]]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("garbage collection: %s", task.exception(), exc_info=task.exception())


def make_guard(settings: Settings) -> Guard:
    """Who may come in.

    Raises:
        InvalidParameter: a file of users or certificates cannot be used.
    """
    if settings.tokens is not None:
        return Tokens(settings.tokens)
    if settings.htpasswd:
        return Passwords(Path(settings.htpasswd), settings.realm)
    return Open()


def bind(address: str) -> list[socket.socket]:
    """The sockets of `host:port`, `[::1]:port`, `:port` or `host`.

    Raises:
        SampanError: that cannot be listened on.
    """
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]"):
        host, port = address, str(DEFAULT_PORT)
    if not port.isdigit() or int(port) > 65535:
        raise InvalidParameter(f"--listen: {address!r} is not ADDRESS:PORT")
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise SampanError(f"cannot listen on {address}: {error.strerror}") from None
    opened: list[socket.socket] = []
    for family, kind, protocol, _, place in dict.fromkeys(found):
        sock = socket.socket(family, kind, protocol)
        opened.append(sock)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(place)
            sock.listen(BACKLOG)
        except OSError as error:
            for one in opened:
                one.close()
            raise SampanError(f"cannot listen on {address}: {error.strerror}") from None
    return opened


def _url(sock: socket.socket, context: ssl.SSLContext | None) -> str:
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if context else 'http'}://{shown}:{port}"


def _warn(settings: Settings, sockets: list[socket.socket], context: ssl.SSLContext | None) -> None:
    outside = [sock for sock in sockets if not sock.getsockname()[0].startswith(("127.", "::1"))]
    if not outside:
        return
    if context is None:
        log.warning("without TLS other machines' clients refuse this registry, and passwords can be read")
    if not settings.htpasswd and settings.tokens is None and not settings.client_authority:
        log.warning("everybody who reaches this registry may push to it: see --htpasswd and --read-only")


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
