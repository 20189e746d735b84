"""`sampan run`: create a container, attach to it, start it, and end as it ends."""

from __future__ import annotations

import time

from sampan.cli.app import line
from sampan.cli.client import escape
from sampan.cli.containers.attached import (
    Detached,
    exit_code,
    need_terminal,
    open_attach,
    session,
    wait_for,
)
from sampan.cli.containers.creating import create
from sampan.cli.containers.options import RUN_FLAGS
from sampan.cli.detach import chosen_keys
from sampan.cli.failures import ApiError, CommandError
from sampan.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Run a container; its exit code is ours."""
    detached, tty = values.on("detach"), values.on("tty")
    keys = chosen_keys(app, values)
    if not detached:
        need_terminal(values.on("interactive"), tty)
    explain = values.on("explain")
    began = time.monotonic() if explain else 0.0
    container, body = create(app, values, arguments, detached)
    made = time.monotonic() if explain else 0.0
    client = app.client
    streams = {name: body[f"Attach{name.capitalize()}"] for name in ("stdin", "stdout", "stderr")}
    attached = any(streams.values())
    undo: list[Callable[[], None]] = []
    if values.on("sig-proxy") and not detached:
        from sampan.cli.signals import forward_to

        undo.append(forward_to(client, container))
    channel = open_attach(client, container, streams, keys) if attached else None
    waiting = None
    if not detached:
        waiting = wait_for(client, container, "removed" if values.on("rm") else "next-exit")
    try:
        answer = client.request("POST", f"/containers/{container}/start", {"explain": explain})
        answer.read()
    except ApiError as error:
        if waiting is not None and values.on("rm"):
            waiting.read()
        raise CommandError(error.message, start_failure(error.detail)) from None
    if explain:
        from sampan.cli.containers.explained import tell

        tell(answer.headers, made - began, time.monotonic() - made)
    if channel is None or waiting is None:
        line(container)
        return 0 if waiting is None else exit_code(waiting)
    if tty:
        from sampan.cli.signals import follow_window

        undo.append(follow_window(client, f"/containers/{escape(container)}/resize"))
    outputs = {kind: kind for kind, name in ((1, "stdout"), (2, "stderr")) if streams[name]}
    try:
        session(channel, tty, streams["stdin"], outputs, keys)
    except Detached:
        return 0
    finally:
        for step in undo:
            step()
    return exit_code(waiting)


def start_failure(detail: str) -> int:
    """The exit code for a start that the daemon refused."""
    if any(
        text in detail
        for text in ("executable file not found", "no such file or directory", "system cannot find the file")
    ):
        return 127
    if "permission denied" in detail or "is a directory" in detail:
        return 126
    return 125


COMMAND = Command(
    "run",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    RUN_FLAGS,
    run,
    least=1,
    aliases=("container run", "run"),
    interspersed=False,
    failure=125,
    with_help=True,
)
