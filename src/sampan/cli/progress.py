"""The daemon's progress messages (pull, load, import): one line each, redrawn in place on a terminal."""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError
from sampan.cli.streams import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


def show_progress(messages: Iterable[dict[str, Any]], fd: int = 1, quiet: bool = False) -> None:
    """Show messages until the stream ends.

    Raises:
        CommandError: a message carried an error.
    """
    terminal = os.isatty(fd)
    lines: dict[str, int] = {}
    for message in messages:
        problem = message.get("errorDetail") or message.get("error")
        if problem:
            text = problem.get("message", "") if isinstance(problem, dict) else str(problem)
            raise CommandError(text)
        if quiet or "aux" in message:
            continue
        _show(message, fd, terminal, lines)


def _show(message: dict[str, Any], fd: int, terminal: bool, lines: dict[str, int]) -> None:
    identity = message.get("id", "")
    bar = _bar(message)
    if "stream" in message:
        write_all(fd, message["stream"].encode("utf-8", "surrogateescape"))
        return
    if bar and not terminal:
        return
    text = message.get("status", "")
    if identity:
        text = f"{identity}: {text}"
    if bar:
        text = f"{text} {bar}"
    if not terminal:
        write_all(fd, f"{text}\n".encode("utf-8", "surrogateescape"))
        return
    up = 0
    if identity:
        if identity not in lines:
            lines[identity] = len(lines)
            write_all(fd, b"\n")
        up = len(lines) - lines[identity]
    else:
        lines.clear()
    data = text.encode("utf-8", "surrogateescape")
    if up:
        write_all(fd, b"\x1b[%dA\x1b[2K\r%s\r\x1b[%dB" % (up, data, up))
    else:
        write_all(fd, data + b"\r\n")


def _bar(message: dict[str, Any]) -> str:
    detail = message.get("progressDetail") or {}
    current, total = detail.get("current", 0), detail.get("total", 0)
    if current <= 0 and total <= 0:
        return ""
    from sampan.cli.human import size

    if total <= 0:
        return f"{size(current):>8}"
    share = min(50, int(current * 50 / total))
    arrow = "=" * share + (">" if share < 50 else "")
    return f"[{arrow:<50}]  {size(current):>8}/{size(total)}" if current <= total else f"{size(current):>8}"
