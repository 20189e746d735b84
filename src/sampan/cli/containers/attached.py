"""A session with a container (or exec): hijacked connection, raw terminal, detach keys, exit code."""

from __future__ import annotations

import os
import sys

from sampan.cli.client import escape
from sampan.cli.failures import CommandError, UsageError
from sampan.cli.streams import Copier

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.client import Channel, Client, Response


class Detached(CommandError):
    """The user typed the detach keys."""

    def __init__(self) -> None:
        super().__init__("read escape sequence")


def need_terminal(stdin: bool, tty: bool) -> None:
    """Refuse a terminal session whose input is no terminal, as docker does."""
    if stdin and tty and not os.isatty(0):
        raise UsageError("the input device is not a TTY")


def open_attach(
    client: Client, container: str, streams: dict[str, bool], keys: str = "", logs: bool = False
) -> Channel:
    """Attach to a container's streams (`stdin`, `stdout`, `stderr`), before or after its start."""
    response = client.request(
        "POST",
        f"/containers/{escape(container)}/attach",
        {"stream": True, **streams, "logs": logs, "detachKeys": keys or None},
        hijack=True,
    )
    return response.channel


def session(
    channel: Channel, tty: bool, stdin: bool, outputs: dict[int, int] | None = None, keys: str = ""
) -> None:
    """Copy until the output ends.

    Args:
        outputs: 1 and 2 for the streams wanted (without a terminal).
        keys: detach keys; empty for the default.

    Raises:
        Detached: the user left.
    """
    sys.stdout.flush()
    if not tty or not stdin:
        Copier(channel, not tty, 0 if stdin else None, outputs).copy()
        return
    from sampan.cli.detach import DEFAULT, Watcher, parse_keys
    from sampan.cli.terminal import Raw

    watcher = Watcher(parse_keys(keys or DEFAULT))
    with Raw(0):
        detached = Copier(channel, False, 0, outputs, watcher).copy()
    if detached:
        raise Detached


def exit_code(waiting: Response) -> int:
    """The exit code that a pending wait is answered with."""
    answer: Any = waiting.json()
    problem = (answer.get("Error") or {}).get("Message") if answer else None
    if problem:
        raise CommandError(f"Error waiting for container: {problem}", 125)
    return int(answer["StatusCode"]) & 0xFF


def wait_for(client: Client, container: str, condition: str) -> Response:
    """Begin to wait for `next-exit` or `removed`; the daemon answers at the end."""
    return client.request(
        "POST", f"/containers/{escape(container)}/wait", {"condition": condition}, hijack=True
    )
