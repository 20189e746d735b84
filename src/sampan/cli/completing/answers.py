"""A half-written command line to what could follow, by the rules of `flags.parse`.

The answer is that of cobra, the library of docker's command line, so that a shell's script for docker works
with sampan and ours with docker: lines of `value<TAB>description`, then `:` and a number of bits.
"""

from __future__ import annotations

from contextlib import closing

from sampan.cli.failures import CommandError
from sampan.cli.flags import HelpWanted, Problem, Values, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.cli.app import App
    from sampan.cli.flags import Command, Flag

# What the shell is told.
FILES = 0  # files too, where nothing else fits
ERROR = 1
NO_SPACE = 2
NO_FILES = 4


def complete(words: Sequence[str]) -> tuple[list[tuple[str, str]], int]:
    """What the last word could become, the others standing before it."""
    from sampan.cli.app import GLOBAL_FLAGS, App

    before, last = list(words[:-1]), words[-1] if words else ""
    if _wanting(GLOBAL_FLAGS, before, False) is not None or not _rest(before):
        with closing(App(Values(GLOBAL_FLAGS))) as app:
            found = _value_or_flag(app, "", GLOBAL_FLAGS, before, last, False)
        return found if found is not None else _starting(_commands(), last, NO_FILES)
    try:
        options, rest = parse(GLOBAL_FLAGS, before, interspersed=False)
    except (Problem, HelpWanted):
        return [], NO_FILES
    with closing(App(options)) as app:
        return _after_command(app, rest, last)


def _rest(before: list[str]) -> list[str]:
    from sampan.cli.app import GLOBAL_FLAGS

    try:
        return parse(GLOBAL_FLAGS, before, interspersed=False)[1]
    except (Problem, HelpWanted):
        return []


def _commands() -> list[tuple[str, str]]:
    from sampan.cli.tree import GROUPS, HIDDEN, TOP

    hidden = HIDDEN.get("", ())
    listed = [(name, summary) for name, (_, summary) in TOP.items() if name not in hidden]
    listed += [(name, summary) for name, (summary, _) in GROUPS.items() if name not in hidden]
    return sorted([*listed, ("help", "Help about any command")])


def _after_command(app: App, words: list[str], last: str) -> tuple[list[tuple[str, str]], int]:
    from sampan.cli.app import find
    from sampan.cli.tree import GROUPS, HIDDEN, NESTED, below, group

    if words[0] == "help":
        words = words[1:]
        if not words:
            return _starting(_commands(), last, NO_FILES)
    path = " ".join(words)
    if path in GROUPS or path in NESTED:
        names = set(group(path)[1]) - set(HIDDEN.get(path, ()))
        listed = list(below(path).items())
        for name in names:
            command = find([*words, name])[0]
            listed.append((name, command.summary if command is not None else ""))
        return _starting(sorted(listed), last, NO_FILES)
    try:
        command, _, rest = find(words)
    except CommandError:
        return [], NO_FILES
    if command is None or command.flags is None:
        return [], NO_FILES
    return _within(app, command, rest, last)


def _within(app: App, command: Command, words: list[str], last: str) -> tuple[list[tuple[str, str]], int]:
    assert command.flags is not None
    from sampan.cli.completing.sources import of_argument

    found = _value_or_flag(app, command.path, command.flags, words, last, command.interspersed)
    if found is not None:
        return found
    try:
        _, arguments = parse(command.flags, words, command.interspersed)
    except HelpWanted:
        return [], NO_FILES
    except Problem:
        arguments = [word for word in words if not word.startswith("-")]
    if command.most is not None and len(arguments) >= command.most:
        return [], NO_FILES
    try:
        values, bits = of_argument(app, command.path, arguments, last)
    except (CommandError, OSError, EOFError):
        return [], ERROR
    used = set(arguments) if command.most is None else set()
    return _starting([pair for pair in values if pair[0] not in used], last, bits)


def _value_or_flag(
    app: App, path: str, flags: Sequence[Flag], words: list[str], last: str, interspersed: bool
) -> tuple[list[tuple[str, str]], int] | None:
    """What fits a flag's value or name; None where an argument stands."""
    from sampan.cli.completing.sources import of_flag

    flag = _wanting(flags, words, interspersed)
    if flag is None:
        if not last.startswith("-") or not _takes_flags(flags, words, interspersed):
            return None
        name, equals, value = last.partition("=")
        if not equals:
            return _starting(_flags(flags, bool(path)), last, NO_FILES)
        flag = next((one for one in flags if name in (f"--{one.name}", f"-{one.short}")), None)
        if flag is None or flag.kind == "bool":
            return [], NO_FILES
        last = value  # cobra's answer is the value alone as well
    try:
        values, bits = of_flag(app, path, flag, last)
    except (CommandError, OSError, EOFError):
        return [], ERROR
    return _starting(values, last, bits)


def _takes_flags(flags: Sequence[Flag], words: list[str], interspersed: bool) -> bool:
    """Whether a flag may stand behind these words."""
    if "--" in words:
        return False
    if interspersed:
        return True
    try:
        return not parse(flags, words, False)[1]
    except Problem:
        return True
    except HelpWanted:
        return False


def _wanting(flags: Sequence[Flag], words: list[str], interspersed: bool) -> Flag | None:
    """The flag that the word behind these is the value of."""
    if not words or words[-1] == "--" or not words[-1].startswith("-"):
        return None
    try:
        parse(flags, words, interspersed)
    except Problem as problem:
        if not str(problem).startswith("flag needs an argument: "):
            return None
        word = words[-1]
        if word.startswith("--"):
            return next((one for one in flags if one.name == word[2:]), None)
        return next((one for one in flags if one.short and one.short == word[-1]), None)
    except HelpWanted:
        return None
    return None


def _flags(flags: Sequence[Flag], help_too: bool) -> list[tuple[str, str]]:
    listed = []
    for flag in sorted(flags, key=lambda one: one.name):
        if not flag.hidden:
            summary = flag.usage.split("\n")[0]
            listed.append((f"--{flag.name}", summary))
            if flag.short:
                listed.append((f"-{flag.short}", summary))
    if help_too and all(flag.name != "help" for flag in flags):
        listed.append(("--help", "Print usage"))
    return listed


def _starting(values: list[tuple[str, str]], last: str, bits: int) -> tuple[list[tuple[str, str]], int]:
    return [(value, about) for value, about in values if value.startswith(last)], bits
