"""`sampan attach`: join the streams of a running container."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.containers.attached import exit_code, need_terminal, open_attach, session, wait_for
from sampan.cli.detach import chosen_keys
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Attach; the container's exit code is ours."""
    container = arguments[0]
    client = app.client
    found = client.call("GET", f"/containers/{escape(container)}/json")
    state = found["State"]
    if not state.get("Running"):
        raise CommandError("You cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise CommandError("You cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise CommandError("You cannot attach to a restarting container, wait until it is running")
    config = found["Config"]
    tty = bool(config.get("Tty"))
    stdin = bool(config.get("OpenStdin")) and not values.on("no-stdin")
    need_terminal(stdin, tty)
    keys = chosen_keys(app, values)
    undo: list[Callable[[], None]] = []
    if values.on("sig-proxy") and not tty:
        from sampan.cli.signals import forward_to

        undo.append(forward_to(client, container))
    waiting = wait_for(client, container, "")
    channel = open_attach(client, container, {"stdin": stdin, "stdout": True, "stderr": True}, keys)
    if tty:
        from sampan.cli.signals import follow_window

        undo.append(follow_window(client, f"/containers/{escape(container)}/resize", redraw=True))
    try:
        session(channel, tty, stdin, {1: 1, 2: 2}, keys)
    finally:
        for step in undo:
            step()
    return exit_code(waiting)


COMMAND = Command(
    "attach",
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    (
        Flag("detach-keys", "string", "Keys that detach from the container"),
        Flag("no-stdin", "bool", "Do not attach STDIN"),
        Flag("sig-proxy", "bool", "Pass all signals on to the process", default=True),
    ),
    run,
    least=1,
    most=1,
    aliases=("container attach", "attach"),
)
