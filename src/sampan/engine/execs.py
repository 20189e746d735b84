"""`docker exec`: a further process in a running container, run by the container's monitor."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import socket
import time
from functools import cache
from pathlib import Path

from sampan.engine.core import Core, Exec, ExecConfig, Live, check_not_restarting, in_thread
from sampan.engine.errors import ExecNotFound, NotRunning
from sampan.engine.init_program import sealed_init
from sampan.engine.options import OWN_RUNTIME
from sampan.engine.signals import parse_signal
from sampan.engine.spec import exec_process
from sampan.errors import Conflict, InvalidParameter, SampanError
from sampan.oci.records import decode, encode
from sampan.runtime import (
    Attachment,
    Beginning,
    ExecRequest,
    ExitRecord,
    LaunchError,
    Process,
    adopt,
    sealed_steps_program,
)

_LONGEST_S = 366 * 86400
_REMOVAL_S = 0.2
KEPT_ENDED = 64  # ended execs that stay to be inspected, for each container


def create(core: Core, live: Live, config: ExecConfig) -> Exec:
    """Prepare a process; `start` runs it.

    Raises:
        Conflict: the container is not running, or paused.
        InvalidParameter: no command.
    """
    if not config.cmd or not config.cmd[0]:
        raise InvalidParameter("No exec command specified")
    _check_runnable(live)
    if not 0 <= config.timeout <= _LONGEST_S:
        raise InvalidParameter(f"the timeout must be 0 to {_LONGEST_S} seconds, not {config.timeout:g}")
    session = Exec(secrets.token_hex(32), live.id, config, time.time_ns())
    _forget_old(live)
    live.execs[session.id] = session
    core.publish(live, f"exec_create: {' '.join(config.cmd)}", execID=session.id)
    return session


def _check_runnable(live: Live) -> None:
    if live.container.state.status == "paused":
        raise Conflict(f"container {live.id} is paused, unpause the container before exec")
    check_not_restarting(live)
    if not live.container.state.running:
        raise NotRunning(live.id)


def _forget_old(live: Live) -> None:
    over = [session.id for session in live.execs.values() if session.ended is not None]
    for exec_id in over[: max(0, len(over) - KEPT_ENDED)]:
        del live.execs[exec_id]


def find(core: Core, exec_id: str) -> tuple[Live, Exec]:
    """The exec of this id, and its container.

    Raises:
        ExecNotFound.
    """
    for live in core.containers.values():
        session = live.execs.get(exec_id)
        if session is not None:
            return live, session
    raise ExecNotFound(exec_id)


def rundir(core: Core, session: Exec) -> str:
    """Where the exec's monitor keeps its socket and exit record."""
    return f"{core.rundir(session.container_id)}/exec/{session.id}"


def check_startable(live: Live, session: Exec) -> None:
    """What must be known before the client's connection is taken over.

    Raises:
        Conflict: it has been started before, or its container does not run.
    """
    if session.started:
        raise Conflict(f"exec {session.id} has already been started")
    _check_runnable(live)


def _request(
    session: Exec, directory: str, terminal_size: tuple[int, int] | None, ends_all: bool
) -> ExecRequest:
    return ExecRequest(
        id=session.id,
        rundir=directory,
        open_stdin=session.config.attach_stdin,
        terminal=session.config.tty,
        terminal_size=terminal_size,
        timeout_s=session.config.timeout,
        reaped=session.config.timeout > 0,
        ends_all=ends_all,
    )


async def start(
    core: Core,
    live: Live,
    session: Exec,
    connection: socket.socket | None,
    attachment: Attachment | None,
    terminal_size: tuple[int, int] | None = None,
    ends_all: bool = False,
) -> None:
    """Run a prepared process.

    Args:
        connection: the client's, when attached; the caller closes its copy.
        attachment: which streams the client takes part in.
        terminal_size: rows and columns.
        ends_all: what it leaves running is ended with it, where it has a time limit.

    Raises:
        LaunchError: the program could not be started.
    """
    check_startable(live, session)
    session.started = True
    directory = rundir(core, session)
    core.publish(live, f"exec_start: {' '.join(session.config.cmd)}", execID=session.id)
    try:
        beginning = await _begin(core, live, session, directory, terminal_size, ends_all)
        attachments = [attachment] if attachment is not None else []
        process = await beginning.go(attachments, [connection.fileno()] if connection is not None else [])
    except (SampanError, OSError) as error:
        code = error.exit_code if isinstance(error, LaunchError) else 126
        session.ended = ExitRecord(code, time.time_ns(), error=str(error))
        await in_thread(lambda: _remove([directory]))
        session.launched.set()
        raise
    session.process = process
    session.launched.set()
    watch(core, live, session, process)


async def _begin(
    core: Core,
    live: Live,
    session: Exec,
    directory: str,
    terminal_size: tuple[int, int] | None,
    ends_all: bool,
) -> Beginning:
    if live.process is None:
        raise NotRunning(live.id)
    request = _request(session, directory, terminal_size, ends_all)
    if live.container.host_config.runtime == OWN_RUNTIME:
        programs = [sealed_steps_program()]
    else:
        programs = [_reaper()] if request.reaped else []
    beginning = await live.process.begin_exec(request, programs)
    try:  # written down while the process is being made: that takes longer
        try:
            _write_down(core, live, session, directory, prompt=core.driver.name != "fuse-overlayfs")
        except BlockingIOError:
            await in_thread(lambda: _write_down(core, live, session, directory))
    except BaseException:
        await beginning.drop()
        raise
    return beginning


@cache
def _reaper() -> int:
    """The program above an exec that has a time limit, with an external runtime."""
    return sealed_init()


def _write_down(core: Core, live: Live, session: Exec, directory: str, prompt: bool = False) -> None:
    """Say in `exec.json` what is to run.

    Args:
        prompt: do it at once, as a thread costs as much as all the rest of it.

    Raises:
        BlockingIOError: then, where something in the container would have to be waited for.
        InvalidParameter: as `exec_process`.
    """
    if live.process_spec is None:  # adopted: a daemon before us started it
        live.process_spec = json.loads((core.rundir(live.id) / "config.json").read_bytes())["process"]
    root = f"/proc/{live.container.state.pid}/root"
    process = exec_process(live.container, session.config, live.process_spec, root, prompt)
    try:
        os.mkdir(directory, 0o710)
    except FileNotFoundError:  # the container's first
        Path(directory).mkdir(0o710, parents=True)
    document = {"process": process, "config": encode(session.config), "created": session.created_at_ns}
    with open(f"{directory}/exec.json", "wb") as file:
        file.write(json.dumps(document).encode())


def watch(core: Core, live: Live, session: Exec, process: Process) -> None:
    """See to the process's end."""

    async def until_end() -> None:
        record = await process.wait()
        session.ended, session.process = record, None
        core.publish(
            live,
            "exec_die",
            execID=session.id,
            exitCode=str(record.exit_code),
        )
        process.close()
        _remove_soon(core, rundir(core, session))

    core.spawn(asyncio.create_task(until_end(), name=f"exec {session.id[:12]}"))


def _remove_soon(core: Core, directory: str) -> None:
    """Remove what an exec has left, with all that end meanwhile: its client still has questions."""
    core.left_by_execs.append(directory)
    if len(core.left_by_execs) > 1:
        return

    async def remove() -> None:
        try:
            await asyncio.sleep(_REMOVAL_S)
        finally:  # this daemon may be about to stop
            directories, core.left_by_execs = core.left_by_execs, []
            await in_thread(lambda: _remove(directories))

    core.spawn(asyncio.create_task(remove(), name="exec directories to remove"))


def _remove(directories: list[str]) -> None:
    for directory in directories:
        try:
            for name in os.listdir(directory):
                os.unlink(f"{directory}/{name}")
            os.rmdir(directory)
        except OSError:  # there is more in it, or nothing any more
            shutil.rmtree(directory, ignore_errors=True)


async def settle(session: Exec) -> None:
    """Wait for the record of a process that has ended already.

    A client learns of the end by its stream and asks for the exit code at once; it must not be told that the
    process still runs, or has not started, only because its monitor's word has not arrived yet.
    """
    if session.started:
        await session.launched.wait()
    if session.process is not None:
        session.process.look()
        if not (session.process.alive and session.process.served):
            session.ended = await session.process.wait()
            session.process = None


async def resize(session: Exec, rows: int, columns: int) -> None:
    """Change the size of the process's terminal.

    Raises:
        Conflict: it is not running.
    """
    if session.process is None:
        raise Conflict(f"exec {session.id} is not running")
    await session.process.resize(rows, columns)


async def kill(session: Exec, text: str) -> None:
    """Send a signal; SIGKILL ends all that the exec has started.

    Args:
        text: the signal's name or number, empty for SIGKILL.

    Raises:
        Conflict: it is not running.
        InvalidParameter: there is no such signal.
    """
    number = parse_signal(text or "KILL")
    if session.process is None:
        raise Conflict(f"exec {session.id} is not running")
    await session.process.kill(number)


async def adopt_all(core: Core, live: Live) -> None:
    """Find the execs that outlived the last daemon."""
    base = core.rundir(live.id) / "exec"
    if not base.is_dir():
        return
    for directory in base.iterdir():
        with contextlib.suppress(FileNotFoundError, ValueError):
            document = json.loads((directory / "exec.json").read_bytes())
            config = decode(ExecConfig, document["config"])
            session = Exec(directory.name, live.id, config, document["created"], started=True)
            found = await adopt(str(directory))
            session.launched.set()
            live.execs[session.id] = session
            if isinstance(found, Process):
                session.process = found
                watch(core, live, session, found)
            else:
                session.ended = found or ExitRecord(137, time.time_ns(), error="its monitor is gone")
                _remove_soon(core, str(directory))
