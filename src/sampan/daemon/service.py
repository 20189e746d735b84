"""The composition root: opens the stores, wires the engine to the API, serves, and leaves cleanly."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import time
from contextlib import AsyncExitStack
from pathlib import Path

from sampan import __version__
from sampan.api.app import router
from sampan.daemon.listeners import Listener, open_listeners, open_tcp
from sampan.daemon.locks import RootLock, remove_pidfile, write_pidfile
from sampan.daemon.reload import reload
from sampan.daemon.settings import Settings
from sampan.database import Database
from sampan.engine import Engine, EventBus
from sampan.errors import SampanError
from sampan.http import HttpServer, Router, ServerInfo
from sampan.images import ImageService
from sampan.introspection import stacks
from sampan.linux import kernel
from sampan.network import NetworkService, Resolving
from sampan.readiness import notify, ready
from sampan.registry import Registries
from sampan.runtime import Launcher
from sampan.stopping import stop_on_signals
from sampan.storage import open_driver
from sampan.volumes import VolumeService

log = logging.getLogger("sampan.daemon")

WORKERS = 16
STOP_GRACE_S = 5.0
LAST_LOOK_S = 0.05
M_ARENA_MAX = -8


class Service:
    """One running daemon.

    Args:
        settings: what flags and file decided.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stop = asyncio.Event()
        self._listeners: list[Listener] = []
        self._server: HttpServer | None = None
        self._engine: Engine | None = None
        self._orphaned = False
        self._finding: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Start, serve until told to stop, stop.

        Raises:
            SampanError: the start failed; what was begun is undone.
        """
        settings = self.settings
        loop = asyncio.get_running_loop()
        loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(WORKERS, "work"))
        kernel.check()
        async with AsyncExitStack() as undo:
            self._handle_signals(loop)
            self._lock_roots(undo)
            write_pidfile(settings.pidfile)
            undo.callback(remove_pidfile, settings.pidfile)
            self._listeners = listeners = open_listeners(settings)
            undo.callback(_close_all, listeners)
            engine = await self._open_engine(undo)
            info = ServerInfo(
                version=__version__,
                hosts=list(dict.fromkeys(listener.url for listener in listeners)),
                debug=settings.log_level == "debug",
                labels=settings.engine.labels,
            )
            server = HttpServer(router(), engine, info)
            self._engine, self._server = engine, server
            undo.push_async_callback(server.stop, STOP_GRACE_S)
            if settings.metrics_address is not None:
                await self._serve_metrics(settings.metrics_address, engine, info, undo)
            for listener in listeners:
                await server.listen(listener.socket, listener.tls)
            log.info("sampand %s listens on %s", __version__, ", ".join(info.hosts))
            gc.collect()
            gc.freeze()
            if settings.keeper is not None:
                self._tend_keeper(settings.keeper)
            ready(settings.ready_fd)
            settings.ready_fd = None
            await self._until_stopped(engine, server)
            notify("STOPPING=1")
        if self._orphaned:
            raise SampanError("the keeper of the namespaces has gone: start the daemon again")

    def _lock_roots(self, undo: AsyncExitStack) -> None:
        options = self.settings.engine
        for root, name in ((options.exec_root, "exec root"), (options.data_root, "data root")):
            try:
                root.mkdir(parents=True, exist_ok=True, mode=0o711)
                lock = RootLock(root / "sampand.lock", f"the {name} {root}")
            except OSError as error:
                hint = " (sampand must run as root)" if isinstance(error, PermissionError) else ""
                raise SampanError(f"the {name} {root} cannot be used: {error.strerror}{hint}") from None
            undo.callback(lock.release)

    async def _open_engine(self, undo: AsyncExitStack) -> Engine:
        options = self.settings.engine
        root: Path = options.data_root
        database = Database(root / "sampan.db")
        undo.callback(database.close)
        events = EventBus()

        def image_event(action: str, image_id: str, attributes: dict[str, str]) -> None:
            events.publish("image", action, image_id, attributes)

        chosen, storage_options = self.settings.storage_driver, self.settings.storage_options
        driver = await asyncio.to_thread(open_driver, chosen, root, storage_options)
        registries = Registries(self.settings.registry)
        undo.callback(registries.close)
        images = ImageService(root, driver, database, image_event, registries)
        resolving = Resolving(options.exec_root)
        undo.callback(resolving.close)
        networks = NetworkService(database, options.exec_root / "netns", self.settings.bridge, resolving)
        resolving.doorkeeper = networks.guard
        volumes = VolumeService(root / "volumes", database)
        engine = Engine(options, database, driver, images, networks, volumes, Launcher(), events, resolving)
        await engine.start()
        undo.push_async_callback(self._stop_engine, engine)
        await asyncio.to_thread(networks.tend)
        await asyncio.to_thread(_seed, images)
        return engine

    async def _serve_metrics(
        self, address: tuple[str, int], engine: Engine, info: ServerInfo, undo: AsyncExitStack
    ) -> None:
        """Answer Prometheus on an address of its own, where nothing but numbers can be had."""
        from sampan.api.routes import metrics

        listeners = open_tcp(f"metrics-addr {address[0]}:{address[1]}", *address)
        undo.callback(_close_all, listeners)  # after the server, which still needs them to end
        server = HttpServer(Router([metrics.routes]), engine, info, headers=(), versioned=False)
        undo.push_async_callback(server.stop, 0.0)
        for listener in listeners:
            await server.listen(listener.socket)

    async def _stop_engine(self, engine: Engine) -> None:
        await engine.stop(self.settings.shutdown_containers)
        await asyncio.to_thread(engine.networks.stop)
        if not engine.running_count():
            await asyncio.to_thread(engine.networks.lower)

    # --- while it runs ---

    async def _until_stopped(self, engine: Engine, server: HttpServer) -> None:
        limit = self.settings.idle_exit_s
        while limit:
            wait = limit - server.idle_seconds()
            if wait <= 0:
                if not engine.running_count() and await self._nobody_comes(server):
                    log.info("no container and no request for %d seconds: leaving", limit)
                    return
                wait = limit
            try:
                async with asyncio.timeout(min(wait + 0.05, 30.0)):
                    await self._stop.wait()
                return
            except TimeoutError:
                continue
        await self._stop.wait()

    async def _nobody_comes(self, server: HttpServer) -> bool:
        """Whether the idle daemon may leave; who has come before its sockets lost their names is served."""
        for listener in self._listeners:
            listener.withdraw()
        await asyncio.sleep(LAST_LOOK_S)
        if server.idle_seconds() >= self.settings.idle_exit_s:
            return True
        for listener in self._listeners:
            listener.restore()
        return False

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        stop_on_signals(loop, self._stop, log)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR1, self._dump)

    def _tend_keeper(self, keeper: socket.socket) -> None:
        """Look out for the end of the keeper, whose connection becomes readable then."""
        loop = asyncio.get_running_loop()

        def lost() -> None:
            loop.remove_reader(keeper.fileno())
            keeper.close()
            self._finding = loop.create_task(self._find_keeper())

        loop.add_reader(keeper.fileno(), lost)

    async def _find_keeper(self) -> None:
        """Its parent begins it anew. Without that no port can be had: the next daemon begins both."""
        from sampan.rootless.entering import met_again

        try:
            keeper = await asyncio.to_thread(met_again, self.settings.engine.exec_root)
        except SampanError as error:
            log.error("%s: stopping", error.message)
            self._orphaned = True
            self._stop.set()
            return
        log.warning("the keeper of the namespaces has been begun anew")
        self.settings.keeper = keeper
        self._tend_keeper(keeper)

    def _reload(self) -> None:
        """SIGHUP: read the file again; a broken one changes nothing."""
        engine, server = self._engine, self._server
        if engine is None or server is None:
            log.warning("SIGHUP: the start is not over yet, and reads the file itself")
            return
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            reload(self.settings, engine, server.info)
        except SampanError as error:
            log.error("SIGHUP: the configuration is kept as it was: %s", error.message)
        finally:
            notify("READY=1")

    def _dump(self) -> None:
        """Tasks and threads to the log, for SIGUSR1."""
        for line in stacks(deepest=4):
            log.warning("%s", line)


def _seed(images: ImageService) -> None:
    """Give an empty store the built-in image."""
    from sampan.images.hello import hello_world_archive

    try:
        if images.add_builtin(hello_world_archive()):
            log.info("the store was empty: hello-world is in it now")
    except SampanError as error:
        log.warning("hello-world could not be added: %s", error.message)


def _close_all(listeners: list[Listener]) -> None:
    for listener in listeners:
        listener.close()


def prepare_process() -> None:
    """Process-wide settings: umask, descriptor limit, few malloc arenas (each costs memory for good)."""
    os.umask(0o022)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 2)
