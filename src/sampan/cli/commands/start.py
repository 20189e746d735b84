"""`sampan start`: start stopped containers, attached to one if asked."""

from __future__ import annotations

from sampan.cli.app import line, warn
from sampan.cli.client import escape
from sampan.cli.containers.attached import (
    Detached,
    exit_code,
    need_terminal,
    open_attach,
    session,
    wait_for,
)
from sampan.cli.detach import chosen_keys
from sampan.cli.failures import ApiError, CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Start the containers, printing each name."""
    if values.text("checkpoint") or values.text("checkpoint-dir"):
        raise CommandError("--checkpoint is not supported by this version")
    if values.on("attach") or values.on("interactive"):
        if len(arguments) > 1:
            raise CommandError("you cannot start and attach multiple containers at once")
        return _attached(app, values, arguments[0])
    failed = []
    for container in arguments:
        try:
            app.client.request("POST", f"/containers/{escape(container)}/start").read()
            line(container)
        except ApiError as error:
            warn(error.message)
            failed.append(container)
    if failed:
        raise CommandError(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _attached(app: App, values: Values, container: str) -> int:
    client = app.client
    found = client.call("GET", f"/containers/{escape(container)}/json")
    identity, config = found["Id"], found["Config"]
    tty = bool(config.get("Tty"))
    stdin = values.on("interactive") and bool(config.get("OpenStdin"))
    need_terminal(stdin, tty)
    keys = chosen_keys(app, values)
    undo: list[Callable[[], None]] = []
    if not tty:
        from sampan.cli.signals import forward_to

        undo.append(forward_to(client, identity))
    running = bool(found["State"].get("Running"))
    channel = open_attach(client, identity, {"stdin": stdin, "stdout": True, "stderr": True}, keys)
    removed = bool((found.get("HostConfig") or {}).get("AutoRemove"))
    waiting = wait_for(client, identity, "removed" if removed else "" if running else "next-exit")
    try:
        client.request("POST", f"/containers/{identity}/start").read()
    except ApiError as error:
        warn(error.message)
        raise CommandError(f"Error: failed to start containers: {container}") from None
    if tty:
        from sampan.cli.signals import follow_window

        undo.append(follow_window(client, f"/containers/{identity}/resize"))
    try:
        session(channel, tty, stdin, {1: 1, 2: 2}, keys)
    except Detached:
        return 0
    finally:
        for step in undo:
            step()
    return exit_code(waiting)


COMMAND = Command(
    "start",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    (
        Flag("attach", "bool", "Attach STDOUT/STDERR and pass signals on", "a"),
        Flag("checkpoint", "string", "Restore from this checkpoint"),
        Flag("checkpoint-dir", "string", "Where checkpoints are kept"),
        Flag("detach-keys", "string", "Keys that detach from the container"),
        Flag("interactive", "bool", "Attach the container's STDIN", "i"),
    ),
    run,
    least=1,
    aliases=("container start", "start"),
)
