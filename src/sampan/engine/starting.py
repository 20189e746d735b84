"""`docker start`: from a created container to its process, every step with its undo beside it.

The taught order: the image's layers and a writable one on top, the network (namespace, veth, address,
gateway), then the process in its namespaces and cgroup. A failure unwinds what was done; after a crash
`sampan.engine.recovery` finds what was left.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import shutil
import socket
from contextlib import ExitStack
from typing import Any

from sampan.engine import (
    ending,
    endpoints,
    health,
    links,
    log_config,
    networks,
    oom,
    ports,
    removal,
    resolution,
    restarting,
)
from sampan.engine.core import Core, Live, check_not_restarting, in_thread
from sampan.engine.errors import NotRunning
from sampan.engine.explaining import Explanation, look_at_kernel
from sampan.engine.metrics import timed
from sampan.engine.model import Container, EndpointSettings, MountPoint
from sampan.engine.mountpoints import tmpfs_points
from sampan.engine.options import runtime_words
from sampan.engine.runtime_features import require_id_maps
from sampan.engine.shipping import probe
from sampan.engine.sources import Sources, tell
from sampan.engine.spec import SpecInputs, build_spec
from sampan.errors import Conflict, InvalidParameter, NotModified, SampanError
from sampan.linux.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, mount
from sampan.network import write_hostname, write_hosts
from sampan.runtime import Attachment, LaunchError, LaunchRequest, Process

_ARRIVAL_S = 5.0  # how long a start waits for clients that are being given the old log


async def start(core: Core, live: Live, explanation: Explanation | None = None) -> None:
    """Start a container that is not running.

    Args:
        explanation: where to note the steps, if anybody wants to know.

    Raises:
        NotModified: it runs already.
        LaunchError: its program could not be started; the exit code is recorded as Docker records it.
        SampanError: a step before that failed; all steps before it are undone.
    """
    async with live.lock:
        if live.container.state.status == "paused":
            raise Conflict("cannot start a paused container, try unpause instead")
        if live.container.state.active:
            raise NotModified(f"container {live.id} is already running")
        begin_anew(core, live)
        await start_locked(core, live, explanation)


def begin_anew(core: Core, live: Live) -> None:
    """Forget what the restart policy has counted and who stopped it: this start was asked for."""
    _check_not_marked(live)
    restarting.call_off(core, live)
    live.backoff_s = 0
    live.container.restart_count = 0
    live.container.stopped_by_user = False


def _check_not_marked(live: Live) -> None:
    if live.removing:
        raise Conflict("container is marked for removal and cannot be started")


@timed("start")
async def start_locked(core: Core, live: Live, explanation: Explanation | None = None) -> None:
    """As `start`, for callers that hold the lock and have checked the state."""
    _check_not_marked(live)
    if live.settled is not None:
        await live.settled  # the clean-up of the last run
        live.settled = None
    container = live.container
    note = explanation.note if explanation is not None else _silent
    note("container found")
    job = core.log_job(container)
    try:
        if job is not None:
            await in_thread(lambda: probe(job))
        runtime = runtime_words(core.options, container.host_config.runtime)
        if runtime and any(point.disk_owner for point in container.mounts):
            await in_thread(lambda: require_id_maps(runtime))
        joins = _joins(core, container)
        live.process_spec, sources = await in_thread(lambda: _prepare(core, container, joins, explanation))
    except (SampanError, OSError) as error:
        await _failed(core, live, error, exit_code=128)
        raise
    if live.arriving:
        await asyncio.wait(live.arriving, timeout=_ARRIVAL_S)
    parked = live.take_parked()
    request = LaunchRequest(
        id=container.id,
        bundle=str(core.rundir(container.id)),
        rundir=str(core.rundir(container.id)),
        open_stdin=container.config.open_stdin,
        stdin_once=container.config.stdin_once,
        log=log_config.log_spec(core.log_path(container), container),
        attachments=tuple(attachment for _, attachment in parked),
        terminal_size=_terminal_size(container),
        runtime=runtime,
    )
    try:
        process = await core.launcher.launch(request, [connection.fileno() for connection, _ in parked])
    except (SampanError, OSError) as error:
        await in_thread(lambda: _undo_start(core, container, sources))
        await _failed(core, live, error, exit_code=getattr(error, "exit_code", 128))
        raise
    finally:
        for connection, _ in parked:
            connection.close()  # the monitor has its own copies of the descriptors now
    if explanation is not None:
        explanation.note_runtime(process)
    if sources is not None and sources.temporary:
        core.spawn(asyncio.ensure_future(in_thread(sources.close)))
    live.process = process
    if live.parked:  # they came meanwhile
        core.spawn(
            asyncio.create_task(_attach_late(live.take_parked(), process), name=f"late {live.id[:12]}")
        )
    live.ended.clear()
    state = container.state
    state.status, state.pid, state.started_at_ns = "running", process.pid, process.started_at_ns
    state.exit_code, state.error, state.oom_killed, state.finished_at_ns = 0, "", False, 0
    health.reset(live)
    core.write_down(container)
    tell(core, container, "mount")
    networks.tell(core, container, "connect")
    core.publish(live, "start")
    if job is not None:
        core.shipping.follow(job)
    health.begin(core, live)
    oom.watch(core, live)
    telling = resolution.telling_life(core, container, process)
    ending.watch(core, live, process)
    if telling is not None:  # beside the loop: a resolver that hangs keeps its lock for seconds
        await in_thread(telling)
    note("written down")


async def _attach_late(parked: list[tuple[socket.socket, Attachment]], process: Process) -> None:
    for connection, attachment in parked:
        with contextlib.suppress(SampanError, OSError), connection:  # it may have ended already
            await process.attach(connection.fileno(), attachment)


def _silent(_: str) -> None:
    """What notes the steps that nobody asked for."""


async def _failed(core: Core, live: Live, error: Exception, exit_code: int) -> None:
    live.drop_parked()
    endpoints.clear_all(live.container)
    state = live.container.state
    state.exit_code = error.exit_code if isinstance(error, LaunchError) else exit_code
    state.error = str(error)
    state.pid = 0
    if state.status == "restarting":
        state.status = "exited"
    core.write_down(live.container)
    live.tell_ended()
    if live.container.host_config.auto_remove:
        await removal.remove_locked(core, live, volumes=True)


def _terminal_size(container: Container) -> tuple[int, int] | None:
    size = container.host_config.console_size
    return (size[0], size[1]) if size and len(size) == 2 and all(size) else None


# --- the steps, in a thread ---


def _joins(core: Core, container: Container) -> dict[str, Container]:
    """The running containers whose namespaces this one joins, by kind."""
    joins: dict[str, Container] = {}
    host_config = container.host_config
    modes = {"network": host_config.network_mode, "pid": host_config.pid_mode, "ipc": host_config.ipc_mode}
    for kind, mode in modes.items():
        if not mode.startswith("container:"):
            continue
        other = core.get(mode.removeprefix("container:")).container
        if not other.state.running:
            what = {"network": "network", "pid": "PID namespace", "ipc": "IPC namespace"}[kind]
            raise Conflict(f"cannot join {what} of a non running container: {other.id}")
        if kind == "ipc" and other.host_config.ipc_mode not in ("shareable", "host"):
            raise InvalidParameter(
                f"cannot join IPC of a container {other.id[:12]}: non-shareable IPC (hint: use "
                "IpcMode:shareable for the donor container)"
            )
        joins[kind] = other
    return joins


def _prepare(
    core: Core, container: Container, joins: dict[str, Container], explanation: Explanation | None
) -> tuple[dict[str, Any], Sources | None]:
    """Make all ready but the process; returns the `process` of its configuration, and what to close then."""
    note = explanation.note if explanation is not None else _silent
    with ExitStack() as undo:
        rundir = core.rundir(container.id)
        if rundir.exists():
            ending.clear_run(rundir, core.cgroups_path(container))
        rundir.mkdir(mode=0o710, parents=True)
        undo.callback(ending.clear_run, rundir, core.cgroups_path(container))
        rootfs = core.driver.mount(container.id)
        undo.callback(core.driver.unmount, container.id)
        note("layers mounted")
        undo.callback(core.networks.remove_sandbox, container.id)
        netns_path = _network(core, container, joins)
        note("network connected")
        if explanation is not None:
            look_at_kernel(core, container, explanation)
        _write_files(core, container, joins)
        note("hosts, hostname and resolv.conf written")
        points, sources = tmpfs_points(container.host_config), None
        if container.mounts:
            undo.callback(core.volumes.let_go, container.id)
            sources = undo.enter_context(Sources(core, container, rootfs, container.id))
            points = [*map(sources.ready, container.mounts), *points]
        shm = _shared_memory(core, container, joins, undo)
        if shm is not None:
            points.append(shm)
        if points:
            note("volumes and binds ready")
        spec = build_spec(
            SpecInputs(
                container=container,
                rootfs=rootfs,
                mounts=points,
                files_dir=str(core.directory(container.id)),
                netns_path=netns_path,
                joins={
                    kind: f"/proc/{other.state.pid}/ns/{kind}"
                    for kind, other in joins.items()
                    if kind != "network"
                },
                cgroups_path=core.cgroups_path(container),
                init_binary=None,
            )
        )
        (rundir / "config.json").write_text(json.dumps(spec))
        if explanation is not None:
            explanation.note_configuration(spec)
        undo.pop_all()
        process: dict[str, Any] = spec["process"]
        return process, sources


def _undo_start(core: Core, container: Container, sources: Sources | None) -> None:
    if sources is not None:
        sources.close()
    core.networks.remove_sandbox(container.id)
    endpoints.clear_all(container)
    ending.clear_run(core.rundir(container.id), core.cgroups_path(container))
    core.driver.unmount(container.id)
    core.volumes.let_go(container.id)


def _network(core: Core, container: Container, joins: dict[str, Container]) -> str | None:
    """Make or find the network namespace; None for the host's."""
    endpoints.clear_all(container)
    if container.host_config.network_mode == "host":
        network = core.networks.get("host")
        container.networks = {"host": EndpointSettings(network_id=network.id)}
        return None
    if "network" in joins:
        other = joins["network"]
        if other.host_config.network_mode == "host":
            return None
        return f"/proc/{other.state.pid}/ns/net"
    sandbox = core.networks.create_sandbox(
        container.id,
        endpoints.requests(core, container),
        ports.bindings(core, container),
    )
    endpoints.note(container, sandbox)
    return sandbox.path


def recall_network(core: Core, container: Container) -> bool:
    """Know again how a running container is connected; whether that was not written down yet."""
    before = copy.deepcopy((container.networks, container.ports, container.sandbox_key))
    if container.host_config.network_mode == "host" or not endpoints.of(container):
        return False
    try:
        wanted = endpoints.requests(core, container)
    except SampanError:
        wanted = []
    known = set(endpoints.of(container))
    sandbox = core.networks.recall_sandbox(container.id, wanted)
    if sandbox is None:
        return False
    for name, endpoint in list(sandbox.endpoints.items()):
        if name not in known:  # a connection that a crash cut short: nobody was told that it was made
            sandbox = core.networks.disconnect(
                container.id, endpoint.network_id, ports.bindings(core, container)
            )
    for name in container.networks.keys() - sandbox.endpoints.keys():
        if core.networks.in_place(container.networks[name].network_id):  # likewise a disconnection
            del container.networks[name]
    endpoints.note(container, sandbox)
    return before != (container.networks, container.ports, container.sandbox_key)


def _write_files(core: Core, container: Container, joins: dict[str, Container]) -> None:
    """hosts, hostname and resolv.conf, as Docker writes them; shared ones are another container's copies."""
    directory = core.directory(container.id)
    if "network" in joins:
        other = core.directory(joins["network"].id)
        container.config.hostname = container.config.hostname or joins["network"].config.hostname
        for name in ("hosts", "resolv.conf"):
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(other / name, directory / name)
        write_hostname(directory / "hostname", container.config.hostname)
        return
    config, host_config = container.config, container.host_config
    addresses = [
        address
        for endpoint in container.networks.values()
        for address in (endpoint.ip_address, endpoint.global_ipv6_address)
        if address
    ]
    on_host = host_config.network_mode == "host"
    write_hostname(directory / "hostname", config.hostname)
    write_hosts(
        directory / "hosts",
        hostname=config.hostname,
        domainname=config.domainname,
        addresses=addresses,
        extra_hosts=host_config.extra_hosts or [],
        linked=links.connect(core, container),
        host_mode=on_host,
        host_gateway=core.networks.gateway,
        ipv6=not endpoints.without_ipv6(container),
    )
    resolution.write(core, container)


def _shared_memory(
    core: Core, container: Container, joins: dict[str, Container], undo: ExitStack
) -> MountPoint | None:
    """`/dev/shm` where it is not private: our own mount that others may join, another's, or the host's."""
    mode = container.host_config.ipc_mode
    if mode == "shareable":
        path = core.rundir(container.id) / "shm"
        path.mkdir()
        size = container.host_config.shm_size
        mount("shm", str(path), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, f"mode=1777,size={size}")
        return MountPoint(type="bind", source=str(path), destination="/dev/shm", propagation="rprivate")
    if "ipc" in joins and joins["ipc"].host_config.ipc_mode == "shareable":
        path = core.rundir(joins["ipc"].id) / "shm"
        return MountPoint(type="bind", source=str(path), destination="/dev/shm", propagation="rprivate")
    if mode == "host" or ("ipc" in joins and joins["ipc"].host_config.ipc_mode == "host"):
        return MountPoint(type="bind", source="/dev/shm", destination="/dev/shm", propagation="rprivate")
    return None


def require_running(live: Live) -> None:
    """Raise `NotRunning` or `Restarting` unless the container has a process."""
    check_not_restarting(live)
    if not live.container.state.running or live.process is None:
        raise NotRunning(live.id)
