"""Help texts in docker's layout: usage, summary, aliases, options aligned and wrapped."""

from __future__ import annotations

import os

from sampan.cli.failures import program
from sampan.cli.flags import REPEATED, usage_line
from sampan.cli.tree import COMMON, GROUPS, HIDDEN, TOP, below, group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.cli.flags import Command, Flag

_SLOP = 5
_LEAST_WIDTH = 24


def _width() -> int:
    try:
        return os.get_terminal_size(1).columns - 1
    except OSError:
        return 79


def command_help(command: Command, path: str) -> str:
    """The help of one command, called by the name `path`."""
    parts = [f"Usage:  {program()} {usage_line(command, path)}", "", command.summary]
    if command.details:
        parts += ["", command.details]
    if len(command.aliases) > 1:
        parts += ["", "Aliases:", "  " + ", ".join(f"{program()} {alias}" for alias in command.aliases)]
    shown = [flag for flag in command.flags or () if not flag.hidden]
    if shown:
        parts += ["", "Options:", options_text(shown, _width())]
    return "\n".join(parts) + "\n"


def options_text(flags: Sequence[Flag], width: int) -> str:
    """The option lines, sorted by name, usages in one column."""
    heads = []
    for flag in sorted(flags, key=lambda one: one.name):
        head = f"  -{flag.short}, --{flag.name}" if flag.short else f"      --{flag.name}"
        heads.append((head if flag.kind == "bool" else f"{head} {flag.kind}", flag))
    column = max(len(head) for head, _ in heads) + 3
    lines = []
    for head, flag in heads:
        usage = flag.usage + _default(flag)
        lines.append(head + " " * (column - len(head)) + _wrap(usage, column, width))
    return "\n".join(lines)


def _default(flag: Flag) -> str:
    if flag.shown is not None:
        return f" (default {flag.shown})" if flag.shown else ""
    if flag.kind == "map":
        return " (default map[])"
    if flag.kind == "ulimit":
        return " (default [])"
    if flag.kind == "duration":
        return " (default 0s)"
    if flag.kind in REPEATED or flag.default in (None, False, "", 0):
        return ""
    if flag.kind == "string":
        return f' (default "{flag.default}")'
    return f" (default {str(flag.default).lower()})"


def _wrap(text: str, indent: int, width: int) -> str:
    room = width - indent
    first = ""
    if room < _LEAST_WIDTH:
        indent = 16
        room = width - indent
        first = "\n" + " " * indent
        if room < _LEAST_WIDTH:
            return text.replace("\n", "\n" + " " * indent)
    room -= _SLOP
    pieces = []
    while True:
        if room + _SLOP > len(text):
            pieces.append(text)
            break
        cut = max(text.rfind(blank, 0, room) for blank in " \t\n")
        if cut <= 0:
            pieces.append(text)
            break
        newline = text.rfind("\n", 0, room)
        if 0 < newline < cut:
            cut = newline
        pieces.append(text[:cut])
        text = text[cut + 1 :]
    return first + ("\n" + " " * indent).join(piece.replace("\n", "\n" + " " * indent) for piece in pieces)


def root_help() -> str:
    """The help of `sampan` itself."""
    from sampan.cli.app import GLOBAL_FLAGS

    names = max(map(len, [*GROUPS, *(name for name in TOP if name not in HIDDEN[""])])) + 2

    def listed(items: Sequence[tuple[str, str]]) -> list[str]:
        return [f"  {name:<{names}}{summary}" for name, summary in items]

    parts = [
        f"Usage:  {program()} [OPTIONS] COMMAND",
        "",
        "A container engine for Linux",
        "",
        "Common Commands:",
    ]
    parts += listed([(name, TOP[name][1]) for name in COMMON])
    parts += ["", "Management Commands:"]
    parts += listed([(name, GROUPS[name][0]) for name in sorted(GROUPS)])
    parts += ["", "Commands:"]
    hidden = (*COMMON, *HIDDEN[""])
    parts += listed([(name, TOP[name][1]) for name in sorted(TOP) if name not in hidden])
    parts += ["", "Global Options:", options_text(GLOBAL_FLAGS, _width())]
    parts += ["", f"Run '{program()} COMMAND --help' for more information on a command."]
    return "\n".join(parts) + "\n"


def group_help(path: str) -> str:
    """The help of a group such as `container`."""
    summary, members = group(path)
    from sampan.cli.app import find

    parts = [f"Usage:  {program()} {path} COMMAND", "", summary, "", "Commands:"]
    within = below(path)
    shown = sorted({*members, *within} - set(HIDDEN.get(path, ())))
    names = max([11, *map(len, shown)]) + 1 if shown else 12
    for name in shown:
        if name in within:
            parts.append(f"  {name:<{names}}{within[name]}")
            continue
        command, _, _ = find([*path.split(), name])
        assert command is not None
        parts.append(f"  {name:<{names}}{command.summary}")
    parts += ["", f"Run '{program()} {path} COMMAND --help' for more information on a command."]
    return "\n".join(parts) + "\n"
