"""Signals of ours that are the container's: passed on, and the window's size with them."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` wraps it in enums, at a cost

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.client import Client

_NAMES = {
    getattr(_signal, name): name.removeprefix("SIG")
    for name in dir(_signal)
    if name.startswith("SIG") and not name.startswith("SIG_")
}
# Never ours to pass on: they speak of this process, or cannot be caught.
_OWN = frozenset((_signal.SIGCHLD, _signal.SIGPIPE, _signal.SIGURG, _signal.SIGKILL, _signal.SIGSTOP))
_FAULTS = frozenset((_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGILL, _signal.SIGFPE, _signal.SIGWINCH))


def forward_to(client: Client, container: str) -> Callable[[], None]:
    """From now on pass every signal on to the container; the result undoes it."""
    from sampan.cli.client import Client as Fresh

    def pass_on(number: int, frame: object) -> None:
        try:
            # A connection of its own: the handler runs in the middle of whatever the client does.
            Fresh(client.host, client.version).request(
                "POST", f"/containers/{container}/kill", {"signal": _NAMES.get(number, str(number))}
            ).read()
        except (CommandError, OSError):
            pass  # the container has gone; its exit is about to be seen

    before: list[tuple[int, Any]] = []
    for number in range(1, 32):
        if number in _OWN or number in _FAULTS:
            continue
        before.append((number, _signal.signal(number, pass_on)))

    def undo() -> None:
        for number, handler in before:
            _signal.signal(number, handler)

    return undo


def follow_window(client: Client, path: str, redraw: bool = False) -> Callable[[], None]:
    """Keep the container's terminal as large as ours; the result ends that.

    Args:
        path: the resize endpoint.
        redraw: change the size and back, which makes a program that already runs draw its screen anew.
    """
    from sampan.cli.client import Client as Fresh
    from sampan.cli.terminal import size

    def resize(number: int = 0, frame: object = None, more: int = 0) -> None:
        found = size(1) or size(0)
        if found is None or 0 in found:
            return
        wanted = {"h": found[0] + more, "w": found[1] + more}
        try:
            Fresh(client.host, client.version).request("POST", path, wanted).read()
        except (CommandError, OSError):
            pass  # not started yet, or gone

    before = _signal.signal(_signal.SIGWINCH, resize)
    if redraw:
        resize(more=1)
    resize()

    def undo() -> None:
        _signal.signal(_signal.SIGWINCH, before)

    return undo
