"""`sampan exec`: run a command in a running container."""

from __future__ import annotations

import sys

from sampan.cli.client import escape
from sampan.cli.containers.attached import need_terminal, session
from sampan.cli.detach import chosen_keys
from sampan.cli.failures import CommandError, UsageError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def exec_body(values: Values, command: list[str], keys: str) -> dict[str, Any]:
    """The body of `POST /containers/{id}/exec`."""
    detached = values.on("detach")
    env = []
    for path in values.items("env-file"):
        from sampan.cli.containers.files import read_pairs

        env += read_pairs(path, True)
    body: dict[str, Any] = {
        "User": values.text("user"),
        "Privileged": values.on("privileged"),
        "Tty": values.on("tty"),
        "AttachStdin": values.on("interactive") and not detached,
        "AttachStdout": not detached,
        "AttachStderr": not detached,
        "Detach": detached,
        "DetachKeys": keys,
        "Env": env + values.items("env"),
        "WorkingDir": values.text("workdir"),
        "Cmd": command,
    }
    if values.given("timeout"):
        body["Timeout"] = _seconds(values.text("timeout"))
    return body


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Run the command; its exit code is ours."""
    container, command = arguments[0], arguments[1:]
    keys = chosen_keys(app, values)
    body = exec_body(values, command, keys)
    detached, tty, stdin = body["Detach"], body["Tty"], body["AttachStdin"]
    if not detached:
        need_terminal(values.on("interactive"), tty)
    if tty:
        from sampan.cli.terminal import size

        found = size(1)
        if found:
            body["ConsoleSize"] = list(found)
    client = app.client
    identity = client.call("POST", f"/containers/{escape(container)}/exec", None, body)["Id"]
    start = {"Detach": detached, "Tty": tty, "ConsoleSize": body.get("ConsoleSize")}
    if detached:
        client.request("POST", f"/exec/{identity}/start", None, start).read()
        return 0
    channel = client.request("POST", f"/exec/{identity}/start", None, start, hijack=True).channel
    undo = None
    if tty and stdin:
        from sampan.cli.signals import follow_window

        undo = follow_window(client, f"/exec/{identity}/resize")
    try:
        session(channel, tty, stdin, {1: 1, 2: 2}, keys)
    finally:
        if undo is not None:
            undo()
    state = client.call("GET", f"/exec/{identity}/json")
    if state.get("Running"):
        raise CommandError(f"the command in container {container} runs on without its output", 1)
    if values.given("timeout") and str(state.get("Error", "")).startswith("timed out"):
        sys.stderr.write(f"sampan: the command {state['Error']}\n")
    return int(state.get("ExitCode") or 0) & 0xFF


def _seconds(text: str) -> float:
    """`--timeout`: seconds, or a duration like `1m30s`."""
    from sampan.cli.values import duration

    try:
        return duration(f"{text}s" if text[-1:].isdigit() else text) / 1e9
    except ValueError as error:
        raise UsageError(f'invalid argument "{text}" for "--timeout" flag: {error}') from None


COMMAND = Command(
    "exec",
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    "Execute a command in a running container",
    (
        Flag("detach", "bool", "Run the command in the background", "d"),
        Flag("detach-keys", "string", "Keys that detach from the container"),
        Flag("env", "list", "Set environment variables", "e", check="env"),
        Flag("env-file", "list", "Read environment variables from a file"),
        Flag("interactive", "bool", "Keep STDIN open even if not attached", "i"),
        Flag("privileged", "bool", "Give the command extended privileges"),
        Flag("timeout", "string", "End the command and all that it started after so long (30, 1m30s)"),
        Flag("tty", "bool", "Allocate a pseudo-TTY", "t"),
        Flag("user", "string", 'User (format: "<name|uid>[:<group|gid>]")', "u"),
        Flag("workdir", "string", "Working directory inside the container", "w"),
    ),
    run,
    least=2,
    aliases=("container exec", "exec"),
    interspersed=False,
)
