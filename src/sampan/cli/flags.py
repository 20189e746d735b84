"""Flags as data, and the parser that reads a command line by them in pflag's manner.

`-itd`, `-e=V`, `-eV`, `-e V`, `--flag=value`, `--flag value`, `--bool=false`, `--`; flags may follow
arguments unless the command says otherwise (`run IMAGE COMMAND -x`: the `-x` is the container's).
"""

from __future__ import annotations

from sampan.cli.failures import UsageError, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sampan.cli.app import App

# Kinds whose values add up; each occurrence is kept as text once it was checked.
REPEATED = frozenset(
    ("list", "map", "filter", "mount", "ulimit", "strings", "stringToString", "network", "gpu-request")
)
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


class Flag:
    """One option of a command.

    Args:
        name: long name without dashes.
        kind: type as help shows it; picks the conversion.
        usage: one sentence for help.
        short: one letter or nothing.
        default: value when not given.
        check: name of a function in `values.CHECKS` that refuses a wrong value.
        shown: the default as help shows it, when that differs.
        hidden: left out of help.
        deprecated: what is said when it is used.
    """

    __slots__ = ("check", "default", "deprecated", "hidden", "kind", "name", "short", "shown", "usage")

    def __init__(
        self,
        name: str,
        kind: str,
        usage: str,
        short: str = "",
        default: Any = None,
        check: str = "",
        shown: str | None = None,
        hidden: bool = False,
        deprecated: str = "",
    ) -> None:
        self.name = name
        self.kind = kind
        self.usage = usage
        self.short = short
        self.default = default
        self.check = check
        self.shown = shown
        self.hidden = hidden
        self.deprecated = deprecated

    @property
    def label(self) -> str:
        """The flag as errors name it."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Command:
    """One command: what it takes, and the function that does it.

    Args:
        path: canonical name below `sampan`, such as "ps".
        arguments: the rest of the usage line.
        summary: one line for the list of commands.
        flags: its options; None hands every word on to the action, `--help` too.
        action: `action(app, values, arguments) -> exit code`.
        least, most: how many arguments it takes; `most` None is any number.
        aliases: full paths that mean the same.
        interspersed: whether flags may follow the first argument.
        failure: exit code of errors before the container's own (125 for run).
        with_help: errors of this command end with the hint to its help.
    """

    __slots__ = (
        "action",
        "aliases",
        "arguments",
        "details",
        "failure",
        "flags",
        "interspersed",
        "least",
        "most",
        "path",
        "summary",
        "with_help",
    )

    def __init__(
        self,
        path: str,
        arguments: str,
        summary: str,
        flags: Sequence[Flag] | None,
        action: Callable[[App, Values, list[str]], int],
        least: int = 0,
        most: int | None = None,
        aliases: Sequence[str] = (),
        interspersed: bool = True,
        failure: int = 1,
        with_help: bool = False,
        details: str = "",
    ) -> None:
        self.path = path
        self.arguments = arguments
        self.summary = summary
        self.flags = flags
        self.action = action
        self.least = least
        self.most = most
        self.aliases = aliases
        self.interspersed = interspersed
        self.failure = failure
        self.with_help = with_help
        self.details = details


class Values:
    """What the flags of one command line were set to."""

    __slots__ = ("_flags", "_set")

    def __init__(self, flags: Sequence[Flag]) -> None:
        self._flags = {flag.name: flag for flag in flags}
        self._set: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self._set:
            return self._set[name]
        flag = self._flags[name]
        if flag.default is not None:
            return flag.default
        if flag.kind in REPEATED:
            return []
        return False if flag.kind == "bool" else "" if flag.kind == "string" else 0

    def text(self, name: str) -> str:
        """The value of a string flag."""
        return str(self[name])

    def on(self, name: str) -> bool:
        """Whether a bool flag is on."""
        return bool(self[name])

    def number(self, name: str) -> int:
        """The value of an int, bytes or duration flag."""
        return int(self[name])

    def items(self, name: str) -> list[str]:
        """All values of a repeated flag."""
        return list(self[name])

    def given(self, name: str) -> bool:
        """Whether the flag stood on the command line."""
        return name in self._set

    def names(self) -> list[str]:
        """The flags that stood on the command line."""
        return list(self._set)

    def put(self, name: str, value: Any) -> None:
        """Set or extend a flag."""
        if self._flags[name].kind in REPEATED:
            self._set.setdefault(name, []).append(value)
        else:
            self._set[name] = value


class Problem(ValueError):
    """A command line that the flags do not allow; becomes a UsageError."""


class HelpWanted(Exception):
    """`--help` was given."""


def parse(flags: Sequence[Flag], words: Sequence[str], interspersed: bool) -> tuple[Values, list[str]]:
    """Split a command line into flag values and arguments.

    Raises:
        Problem: unknown flag, missing or wrong value; the message is pflag's.
        HelpWanted: `--help`, or `-h` where no flag has that letter.
    """
    values = Values(flags)
    long = {flag.name: flag for flag in flags}
    short = {flag.short: flag for flag in flags if flag.short}
    arguments: list[str] = []
    index, count = 0, len(words)
    while index < count:
        word = words[index]
        index += 1
        if len(word) < 2 or word[0] != "-":
            arguments.append(word)
            if not interspersed:
                arguments.extend(words[index:])
                break
            continue
        if word == "--":
            arguments.extend(words[index:])
            break
        if word[1] == "-":
            index = _long(values, long, word, words, index)
        else:
            index = _shorts(values, short, word, words, index)
    return values, arguments


def _long(values: Values, long: dict[str, Flag], word: str, words: Sequence[str], index: int) -> int:
    name, equals, text = word[2:].partition("=")
    if not name or name[0] == "-":
        raise Problem(f"bad flag syntax: {word}")
    if name == "help":
        raise HelpWanted
    flag = long.get(name)
    if flag is None:
        from sampan.cli.guessing import guess

        shown = (one.name for one in long.values() if not one.hidden)
        raise Problem(f"unknown flag: --{name}{guess(name, shown, '--')}")
    if not equals:
        if flag.kind == "bool":
            text = "true"
        elif index < len(words):
            text = words[index]
            index += 1
        else:
            raise Problem(f"flag needs an argument: --{name}")
    _set(values, flag, text)
    return index


def _shorts(values: Values, short: dict[str, Flag], word: str, words: Sequence[str], index: int) -> int:
    letters = word[1:]
    while letters:
        letter, rest = letters[0], letters[1:]
        flag = short.get(letter)
        if flag is None:
            if letter == "h":
                raise HelpWanted
            raise Problem(f"unknown shorthand flag: {letter!r} in -{letters}")
        if len(rest) > 1 and rest[0] == "=":
            _set(values, flag, rest[1:])
            return index
        if flag.kind == "bool":
            _set(values, flag, "true")
            letters = rest
            continue
        if rest:
            _set(values, flag, rest)
        elif index < len(words):
            _set(values, flag, words[index])
            index += 1
        else:
            raise Problem(f"flag needs an argument: {letter!r} in -{letters}")
        return index
    return index


def _set(values: Values, flag: Flag, text: str) -> None:
    try:
        value = _convert(flag, text)
    except ValueError as error:
        shown = text.replace("\\", "\\\\").replace('"', '\\"')
        raise Problem(f'invalid argument "{shown}" for "{flag.label}" flag: {error}') from None
    if flag.deprecated:
        import sys

        sys.stderr.write(f"Flag --{flag.name} has been deprecated, {flag.deprecated}\n")
    if isinstance(value, _Several):
        for item in value.items:
            values.put(flag.name, item)
    else:
        values.put(flag.name, value)


class _Several:
    __slots__ = ("items",)

    def __init__(self, items: list[str]) -> None:
        self.items = items


def _convert(flag: Flag, text: str) -> Any:
    kind = flag.kind
    if kind == "bool":
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    if flag.check:
        from sampan.cli.values import CHECKS

        return CHECKS[flag.check](text)
    if kind in ("string", "list"):
        return text
    if kind == "strings":
        return _Several(text.split(",") if text else [])
    if kind == "stringToString":
        from sampan.cli.values import pairs

        return _Several(pairs(text))
    from sampan.cli.values import KINDS

    return KINDS[kind](text)


def usage_error(path: str, usage: str, message: str, verb: str = "Run", code: int = 125) -> UsageError:
    """A UsageError with the usage line and the hint in docker's places."""
    words = f"{program()} {path}".rstrip()
    hint = f"{verb} '{words} --help' for more information"
    return UsageError(f"{message}\n\nUsage:  {program()} {usage}\n\n{hint}", code)


def usage_line(command: Command, path: str) -> str:
    """The usage line of a command under the name it was called by."""
    return f"{path} {command.arguments}".rstrip()


def check_count(command: Command, path: str, count: int) -> None:
    """Refuse a wrong number of arguments."""
    least, most = command.least, command.most
    if count >= least and (most is None or count <= most):
        return

    def plural(number: int) -> str:
        return "argument" if number == 1 else "arguments"

    verb = "Run"
    if most == 0:
        text = "accepts no arguments"
    elif most == least:
        text = f"requires {least} {plural(least)}"
    elif most is None or (count < least and most > least):
        text = f"requires at least {least} {plural(least)}"
        verb = "See"
        if most is not None:
            text = f"requires at least {least} and at most {most} {plural(most)}"
            verb = "Run"
    else:
        text = f"requires at most {most} {plural(most)}"
    if least == 0 and most not in (None, 0):
        text, verb = f"requires at most {most} {plural(most or 0)}", "Run"
    message = f"{program()}: '{program()} {path}' {text}"
    raise usage_error(path, usage_line(command, path), message, verb, 1)
