"""The verbs of the OCI runtime command line that act on containers (OCI runtime spec, "Operations")."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from sampan.errors import Conflict, InvalidParameter, SampanError
from sampan.linux import capabilities, cgroups, process, syscalls
from sampan.runtime import bundle, hooks
from sampan.runtime.bundle import ProcessSpec
from sampan.runtime.errors import launch_error
from sampan.runtime.init import Refused
from sampan.runtime.joining import start_exec
from sampan.runtime.launcher import forget_imports
from sampan.runtime.oci_state import Container, Store
from sampan.runtime.start import Started, plan_container, start_container
from sampan.runtime.steps_program import sealed_steps_program
from sampan.runtime.targets import filters_of, target_of

_CGROUP_PARENT = "/sampan-runtime"


def create(
    store: Store, identifier: str, directory: str, console_socket: str, pid_file: str, guarded: bool = False
) -> Started:
    """Make a container whose program waits for `start`. Standard streams are the caller's own.

    Args:
        store: where it is recorded.
        identifier: its id.
        directory: the bundle.
        console_socket: where to send a terminal's master, if the process wants one.
        pid_file: where to write the pid; "" for nowhere.
        guarded: it dies with this process (`run` in the foreground).

    Raises:
        SampanError: and nothing is left of it.
    """
    path = os.path.realpath(directory)
    spec = bundle.parse_config(bundle.load(path))
    if spec.process is None:
        raise InvalidParameter("config.json: process is missing")
    _check_console(spec.process, console_socket)
    if not spec.cgroups_path.startswith("/"):
        spec.cgroups_path = f"{_CGROUP_PARENT}/{spec.cgroups_path or identifier}"
    store.reserve(identifier)
    started: Started | None = None
    try:
        fifo = os.open(store.fifo(identifier), os.O_RDWR | os.O_CLOEXEC)
        filters = filters_of(spec)
        plan = plan_container(spec)
        started = _start(
            "container",
            lambda: start_container(
                identifier, path, spec, (0, 1, 2), filters, plan=plan, guarded=guarded,
                wait=lambda: _await_start(fifo), kept=(fifo,),
            ),
        )  # fmt: skip
        os.close(fifo)
        _send_console(started, console_socket)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        ticks = process.start_time_ticks(started.pid) or 0
        store.save(
            Container(identifier, path, started.pid, ticks, spec.cgroups_path, created, spec.annotations)
        )
        _write_pid(pid_file, started.pid)
    except BaseException:
        if started is not None:
            os.kill(started.pid, signal.SIGKILL)
            os.waitpid(started.pid, 0)
        cgroups.manager_for(spec.cgroups_path).remove()
        store.remove(identifier)
        raise
    return started


def _await_start(fifo: int) -> None:
    os.read(fifo, 1)
    os.close(fifo)


def start(store: Store, identifier: str) -> None:
    """Let a created container's program run.

    Raises:
        Conflict: it is not waiting.
    """
    container = store.load(identifier)
    status = store.status(container)
    if status != "created":
        raise Conflict(f"cannot start container {identifier}: it is {status}")
    fifo = os.open(store.fifo(identifier), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.unlink(store.fifo(identifier))
    os.write(fifo, b"1")
    os.close(fifo)
    _run_hooks(store, container, "poststart", "running")


def delete(store: Store, identifier: str, force: bool) -> None:
    """Remove a container that has stopped, or with `force` any.

    Raises:
        Conflict: it has not stopped.
    """
    container = store.load(identifier)
    status = store.status(container)
    if status != "stopped" and not force:
        raise Conflict(f"cannot delete container {identifier}: it is {status}")
    manager = cgroups.manager_for(container.cgroups_path)
    if manager.exists():
        manager.kill_all()
        manager.remove()
    if container.cgroups_path.startswith(f"{_CGROUP_PARENT}/"):
        for path in set(cgroups.manager_for(_CGROUP_PARENT).paths().values()):
            try:
                os.rmdir(path)
            except OSError:
                pass  # others are in it
    _run_hooks(store, container, "poststop", "stopped")
    store.remove(identifier)


def kill(store: Store, identifier: str, signum: int, everyone: bool) -> None:
    """Signal a container's first process, or with `everyone` all of them.

    Raises:
        Conflict: it has stopped.
    """
    container = store.load(identifier)
    if everyone:
        for pid in cgroups.manager_for(container.cgroups_path).pids():
            try:
                os.kill(pid, signum)
            except ProcessLookupError:
                pass
        return
    try:
        pidfd = syscalls.pidfd_open(container.pid)
    except ProcessLookupError:
        raise Conflict(f"container {identifier} is not running") from None
    try:
        if not container.alive():
            raise Conflict(f"container {identifier} is not running")
        syscalls.pidfd_send_signal(pidfd, signum)
    finally:
        os.close(pidfd)


def execute(
    store: Store, identifier: str, wanted: dict[str, Any], console_socket: str, pid_file: str, guarded: bool
) -> Started:
    """Start one more process in a running container; arguments as `create`, `wanted` is an OCI `process`."""
    container = store.load(identifier)
    status = store.status(container)
    if status != "running":
        raise Conflict(f"cannot exec in container {identifier}: it is {status}")
    where = target_of(
        replace(bundle.parse_config(bundle.load(container.bundle)), cgroups_path=container.cgroups_path)
    )
    parsed = bundle.parse_process(wanted)
    _check_console(parsed, console_socket)
    program = sealed_steps_program()
    started = _start(
        "exec",
        lambda: start_exec(program, identifier, container.pid, where, parsed, (0, 1, 2), guarded=guarded),
    )
    _send_console(started, console_socket)
    _write_pid(pid_file, started.pid)
    return started


def wait(started: Started) -> int:
    """Wait for a process of ours, passing signals on to it; its exit code as a shell has it."""
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    ):
        signal.signal(number, lambda number, _: syscalls.pidfd_send_signal(started.pidfd, number))
    while True:
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1])
            return code if code >= 0 else 128 - code
        except InterruptedError:
            continue


def _start(kind: str, action: Any) -> Started:
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    capabilities.last_cap()
    forget_imports()
    try:
        started: Started = action()
        return started
    except Refused as error:
        raise launch_error(kind, error.stage, error.text, error.number) from None


def _check_console(wanted: ProcessSpec, console_socket: str) -> None:
    if wanted.terminal and not console_socket:
        raise InvalidParameter("a process with a terminal needs --console-socket")
    if console_socket and not wanted.terminal:
        raise InvalidParameter("--console-socket needs a process with a terminal")


def _send_console(started: Started, path: str) -> None:
    if started.terminal is None:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.connect(path)
        socket.send_fds(end, [b"/dev/ptmx"], [started.terminal])
    os.close(started.terminal)


def _write_pid(path: str, pid: int) -> None:
    if path:
        temporary = Path(f"{path}.tmp")
        temporary.write_text(str(pid))
        temporary.rename(path)


def _run_hooks(store: Store, container: Container, name: str, status: str) -> None:
    """Hooks whose failure is only told."""
    try:
        spec = bundle.parse_config(bundle.load(container.bundle))
    except SampanError as error:
        print(f"sampan-runtime: {name} hooks: {error}", file=sys.stderr)
        return
    for hook in spec.hooks.get(name, []):
        try:
            hooks.run_all([hook], store.state(container, status))
        except OSError as error:
            print(f"sampan-runtime: {name}: {error.strerror}", file=sys.stderr)


def read_process(path: str) -> dict[str, Any]:
    """An OCI `process` object from a file, "-" for stdin.

    Raises:
        InvalidParameter: no JSON object.
    """
    if path != "-":
        return bundle.load_json(path)
    value = json.load(sys.stdin)
    if not isinstance(value, dict):
        raise InvalidParameter(f"expected an object: {os.strerror(errno.EINVAL)}")
    return value
