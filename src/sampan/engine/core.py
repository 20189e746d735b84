"""The engine's shared ground: its services, and every container with what is known of it only while we run.

Lifecycle verbs live in modules of their own (`create`, `starting`, `ending`, `execs`, …) and take a `Core`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sampan.database import Database
from sampan.dataclasses import dataclass
from sampan.engine import log_config
from sampan.engine.build_caches import BuildCaches
from sampan.engine.errors import ContainerNotFound, RemovalInProgress, Restarting
from sampan.engine.events import EventBus
from sampan.engine.held_images import HeldImages
from sampan.engine.metrics import Metrics
from sampan.engine.model import Container
from sampan.engine.options import EngineOptions
from sampan.engine.refusals import Refusals
from sampan.engine.shipping import Shipping
from sampan.engine.store import ContainerStore, engine_id
from sampan.errors import InvalidParameter
from sampan.images import ImageService
from sampan.linux.cgroups import AbsentManager, Manager, manager_for
from sampan.logdrivers.job import Job
from sampan.network import NetworkService, Resolving
from sampan.runtime import Attachment, ExitRecord, Launcher, Process
from sampan.storage import Driver
from sampan.volumes import VolumeService

if TYPE_CHECKING:
    from sampan.engine.health import Monitor
    from sampan.engine.oom import OomWatch

RETRY_S = 2.0
T = TypeVar("T")
_log = logging.getLogger("sampan.engine")


@dataclass(slots=True)
class ExecConfig:
    """What `POST /containers/{id}/exec` asks for.

    Attributes:
        timeout: seconds after which it is ended with all that it started, 0 for never; not Docker's.
    """

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    tty: bool = False
    detach_keys: str = ""
    env: list[str] | None = None
    cmd: list[str] = field(default_factory=list)
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    console_size: list[int] | None = None
    timeout: float = 0


@dataclass(eq=False, slots=True)
class Exec:
    """A process added to a running container.

    Attributes:
        launched: set when the attempt to start it is over, well or ill.
    """

    id: str
    container_id: str
    config: ExecConfig
    created_at_ns: int
    process: Process | None = None
    started: bool = False
    ended: ExitRecord | None = None
    launched: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False, slots=True)
class Live:
    """A container, and what of it exists only in this daemon's memory.

    Attributes:
        lock: held while the container changes state; nothing wider is ever locked.
        process: the running init, through its monitor.
        ended: set while no process runs.
        next_exit: done with the exit code at the next end of a run, then replaced.
        removal: somebody is removing it; done when that has come to an end, well or ill.
        restart: waits for its back-off to pass, then starts the container.
        backoff_s: the last back-off, 0 for none yet.
        health: runs the health checks.
        oom: is told when the kernel is out of memory for it.
        kept: this end is not the last (a restart): an automatic removal must not follow it.
        removed: set when the container is gone.
        settled: done when the clean-up after the last end is.
        process_spec: the `process` of the OCI configuration, for execs; None when not read yet.
        parked: clients that attached before the start; their descriptors are ours to close.
        arriving: clients that are about to be parked; a start waits for them a little.
        listed: its entry in lists as it was last given out, and what that depends on.
        paths, graph_data: of its files, as inspect shows them; None when not asked for yet.
        sample, sampling: the last look at what it uses (`stats.Sample`), and the one being taken.
    """

    container: Container
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    process: Process | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    removed: asyncio.Event = field(default_factory=asyncio.Event)
    next_exit: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    removal: asyncio.Future[None] | None = None
    kept: bool = False
    settled: asyncio.Task[None] | None = None
    restart: asyncio.Task[None] | None = None
    backoff_s: float = 0
    health: Monitor | None = None
    oom: OomWatch | None = None
    parked: list[tuple[socket.socket, Attachment]] = field(default_factory=list)
    arriving: set[asyncio.Future[None]] = field(default_factory=set)
    process_spec: dict[str, Any] | None = None
    execs: dict[str, Exec] = field(default_factory=dict)
    listed: tuple[Any, bytes] | None = None
    paths: dict[str, str] | None = None
    graph_data: dict[str, str] | None = None
    sample: Any = None
    sampling: asyncio.Future[Any] | None = None

    @property
    def id(self) -> str:
        """The container's id."""
        return self.container.id

    @property
    def removing(self) -> bool:
        """Whether somebody is removing it."""
        return self.removal is not None

    @property
    def status(self) -> str:
        """Its state, as `docker ps` calls it."""
        state = self.container.state
        return "removing" if self.removing and not state.active else state.status

    def begin_removal(self) -> None:
        """Keep others from removing or starting it."""
        self.removal = asyncio.get_running_loop().create_future()

    def end_removal(self) -> None:
        """It has failed: somebody else may try."""
        if self.removal is not None:
            self.removal.set_result(None)
            self.removal = None

    def tell_ended(self) -> None:
        """Wake everybody who waits for the end of a run."""
        self.ended.set()
        if not self.next_exit.done():
            self.next_exit.set_result(self.container.state.exit_code)
        self.next_exit = asyncio.get_running_loop().create_future()

    @contextlib.contextmanager
    def arrival(self) -> Iterator[None]:
        """While a client is on its way to the streams: who starts the container then has it there."""
        if self.process is not None:
            yield
            return
        arriving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.arriving.add(arriving)
        try:
            yield
        finally:
            self.arriving.discard(arriving)
            arriving.set_result(None)

    def take_parked(self) -> list[tuple[socket.socket, Attachment]]:
        """Those that wait for the start, for the caller to serve and close."""
        parked, self.parked = self.parked, []
        return parked

    def drop_parked(self) -> None:
        """Let clients go that waited for a start which will not come."""
        for connection, _ in self.take_parked():
            connection.close()


class Core:
    """Services, and the containers by id and name. Lives on the event loop's thread."""

    def __init__(
        self,
        options: EngineOptions,
        database: Database,
        driver: Driver,
        images: ImageService,
        networks: NetworkService,
        volumes: VolumeService,
        launcher: Launcher,
        events: EventBus,
        resolving: Resolving,
    ) -> None:
        self.options = options
        self.store = ContainerStore(database)
        self.id = engine_id(database)
        self.driver = driver
        self.images = images
        self.networks = networks
        self.volumes = volumes
        self.launcher = launcher
        self.events = events
        self.resolving = resolving
        self.refusals = Refusals(self.directory)
        networks.guard.tell = self.refusals.note
        self.metrics = Metrics()
        self.shipping = Shipping()
        self.containers: dict[str, Live] = {}
        self.linked: dict[str, set[str]] = {}  # who has links to a container, by ids (`links`)
        self.background: set[asyncio.Task[Any]] = set()
        self.left_by_execs: list[str] = []  # directories of ended execs, removed together
        self._unwritten: set[str] = set()  # ids of what waits for room on the disk
        self.pruning: set[str] = set()  # the kinds of objects that are being pruned
        self.builds: dict[str, Callable[[], None]] = {}  # by id: what ends a build that is under way
        self.build_caches = BuildCaches(options.data_root / "build-caches")
        self.build_roots: set[str] = set()  # file systems in the driver's care that builds fill
        self.build_images = HeldImages()
        self.leaving = False  # the daemon ends: what ends now is started again by the next one

    # --- places ---

    def directory(self, container_id: str) -> Path:
        """What a container keeps for life: hosts, hostname, resolv.conf, its log."""
        return self.options.data_root / "containers" / container_id

    def rundir(self, container_id: str) -> Path:
        """What exists only while it runs: the bundle, the monitor's socket, the exit record."""
        return self.options.exec_root / "containers" / container_id

    def log_path(self, container: Container) -> Path:
        """The log file."""
        return log_config.log_path(self.directory(container.id), container)

    def log_job(self, container: Container) -> Job | None:
        """What sends the container's lines to a remote log driver; None for the others."""
        return log_config.remote_job(self.log_path(container), container)

    def cgroups_path(self, container: Container) -> str:
        """The container's cgroup, below the hierarchies' roots; "" when it has none."""
        if not self.options.cgroup_parent:
            return ""
        parent = container.host_config.cgroup_parent or self.options.cgroup_parent
        return os.path.join("/", parent, container.id)

    def cgroup(self, container: Container) -> Manager:
        """The manager of the container's cgroup, or of what stands in for it."""
        path = self.cgroups_path(container)
        return manager_for(path) if path else AbsentManager(container.state.pid)

    # --- containers ---

    def get(self, reference: str) -> Live:
        """The container of this id, name, name of a link, or unambiguous id prefix.

        Raises:
            ContainerNotFound, InvalidParameter: none, or more than one.
        """
        found = self.find(reference)
        if found is None:
            raise ContainerNotFound(reference)
        return found

    def find(self, reference: str) -> Live | None:
        """As `get`, but None when there is no such container."""
        exact = self.containers.get(reference)
        if exact is not None:
            return exact
        name = reference.removeprefix("/")
        for live in self.containers.values():
            if live.container.name == name:
                return live
        if "/" in name and self.linked:
            parent, _, alias = name.rpartition("/")
            for live in self.containers.values():
                if live.container.name == parent:
                    return self.containers.get(live.container.links.get(alias, ""))
        matches = [live for live in self.containers.values() if reference and live.id.startswith(reference)]
        if len(matches) > 1:
            raise InvalidParameter(f"Multiple IDs found with provided prefix: {reference}")
        return matches[0] if matches else None

    def publish(self, live: Live, action: str, **attributes: str) -> None:
        """A container's event, with what Docker always tells of it: image, name, labels."""
        container = live.container
        known = {**container.config.labels, "image": container.config.image, "name": container.name}
        self.events.publish("container", action, container.id, {**known, **attributes})

    def write_down(self, container: Container) -> None:
        """Record what has happened; on a full disk once there is room, as nobody may wait for that."""
        try:
            self.store.save(container)
        except OSError as error:
            if container.id in self._unwritten:
                return
            self._unwritten.add(container.id)
            _log.error("container %s could not be written down yet: %s", container.id[:12], error)
            later = asyncio.create_task(self._write_down_later(container), name="watch for room on the disk")
            self.spawn(later)

    async def _write_down_later(self, container: Container) -> None:
        while container.id in self.containers:
            await asyncio.sleep(RETRY_S)
            try:
                self.store.save(container)
                break
            except OSError:
                continue
        self._unwritten.discard(container.id)

    def spawn(self, work: asyncio.Task[T]) -> asyncio.Task[T]:
        """Keep a background task alive until it is done."""
        self.background.add(work)
        work.add_done_callback(self.background.discard)
        return work


async def in_thread(function: Callable[[], T]) -> T:
    """Run blocking work beside the event loop."""
    return await asyncio.get_running_loop().run_in_executor(None, function)


def check_not_removing(live: Live) -> None:
    """Raise `RemovalInProgress` when somebody is removing this container."""
    if live.removing:
        raise RemovalInProgress(live.id)


def check_not_restarting(live: Live) -> None:
    """Raise `Restarting` while the container waits for its next start."""
    if live.container.state.status == "restarting":
        raise Restarting(live.id)
