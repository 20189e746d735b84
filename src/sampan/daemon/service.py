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
import sys
import threading
import traceback
from contextlib import AsyncExitStack
from pathlib import Path

from sampan import __version__, logs
from sampan.api.app import router
from sampan.daemon.listeners import Listener, open_listeners
from sampan.daemon.locks import RootLock, remove_pidfile, write_pidfile
from sampan.daemon.settings import Settings, settle
from sampan.database import Database
from sampan.engine import Engine, EventBus
from sampan.errors import SampanError
from sampan.http import HttpServer, ServerInfo
from sampan.images import ImageService
from sampan.linux import kernel
from sampan.network import NetworkService
from sampan.readiness import notify, ready
from sampan.registry import Registries
from sampan.runtime import Launcher
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
        self._signals = 0
        self._listeners: list[Listener] = []
        self._server: HttpServer | None = None
        self._engine: Engine | None = None

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
            for listener in listeners:
                await server.listen(listener.socket, listener.tls)
            log.info("sampand %s listens on %s", __version__, ", ".join(info.hosts))
            gc.collect()
            gc.freeze()
            ready(settings.ready_fd)
            settings.ready_fd = None
            await self._until_stopped(engine, server)
            notify("STOPPING=1")

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

        driver = await asyncio.to_thread(open_driver, self.settings.storage_driver, root)
        registries = Registries(self.settings.registry)
        undo.callback(registries.close)
        images = ImageService(root, driver, database, image_event, registries)
        networks = NetworkService(database, options.exec_root / "netns", self.settings.bridge)
        volumes = VolumeService(root / "volumes", database)
        engine = Engine(options, database, driver, images, networks, volumes, Launcher(), events)
        await engine.start()
        undo.push_async_callback(self._stop_engine, engine)
        await asyncio.to_thread(_seed, images)
        return engine

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
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._on_stop, signum)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGUSR1, self._dump)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)

    def _on_stop(self, signum: int) -> None:
        self._signals += 1
        log.info("%s: stopping", signal.Signals(signum).name)
        self._stop.set()
        if self._signals >= 3:
            log.warning("forced to leave at once; the next start repairs what this leaves")
            os._exit(130)

    def _reload(self) -> None:
        try:
            fresh = settle(self.settings.flags)
        except SampanError as error:
            log.error("SIGHUP: the configuration is kept as it was: %s", error.message)
            return
        changed = []
        options, now = self.settings.engine, fresh.engine
        if fresh.log_level != self.settings.log_level:
            self.settings.log_level = fresh.log_level
            logs.set_level(fresh.log_level)
            changed.append(f"log-level={fresh.log_level}")
        if now.debug != options.debug:
            options.debug = now.debug
            changed.append(f"debug={str(now.debug).lower()}")
        if now.labels != options.labels:
            options.labels[:] = now.labels
            changed.append(f"labels={','.join(now.labels)}")
        if fresh.registry != self.settings.registry and self._engine is not None:
            self.settings.registry = fresh.registry
            self._engine.images.registries.reload(fresh.registry)
            changed.append("registries")
        if now.shutdown_timeout_s != options.shutdown_timeout_s:
            options.shutdown_timeout_s = now.shutdown_timeout_s
            changed.append(f"shutdown-timeout={now.shutdown_timeout_s}")
        if self._server is not None:
            self._server.info.debug = self.settings.log_level == "debug"
        log.info("SIGHUP: reloaded %s: %s", fresh.config_file, ", ".join(changed) or "nothing changed")
        if self._engine is not None:
            self._engine.events.publish("daemon", "reload", self._engine.id, {"name": os.uname().nodename})

    def _dump(self) -> None:
        """Tasks and threads to the log, for SIGUSR1."""
        for task in asyncio.all_tasks():
            frames = task.get_stack(limit=3)
            place = "; ".join(f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in frames)
            log.warning("task %s: %s", task.get_name(), place or "done")
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            stack = traceback.extract_stack(frame)[-4:]
            place = "; ".join(f"{item.name}:{item.lineno}" for item in stack)
            log.warning("thread %s: %s", names.get(ident, ident), place)


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
