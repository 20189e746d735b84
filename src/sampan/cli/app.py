"""From the words of a command line to a command, its exit code, and the way every failure is shown."""

from __future__ import annotations

import os
import sys

from sampan.cli.failures import CommandError, ConnectionFailed, Exit, UsageError, program
from sampan.cli.flags import (
    Command,
    Flag,
    HelpWanted,
    Problem,
    Values,
    check_count,
    parse,
    usage_error,
    usage_line,
)
from sampan.cli.tree import ALIASES, GROUPS, HIDDEN, NESTED, TOP, below, group

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.cli.client import Client

GLOBAL_FLAGS = (
    Flag("config", "string", "Directory of the client's own files", shown='"~/.docker"'),
    Flag("context", "string", "Name of the context to use to connect to the daemon", "c"),
    Flag("debug", "bool", "Enable debug mode", "D"),
    Flag("host", "list", "Daemon socket to connect to", "H"),
    Flag("log-level", "string", 'Logging level ("debug", "info", "warn", "error", "fatal")', "l", "info"),
    Flag("tls", "bool", "Use TLS; implied by --tlsverify"),
    Flag("tlscacert", "string", "Trust only certificates signed by this CA"),
    Flag("tlscert", "string", "Path of the TLS certificate"),
    Flag("tlskey", "string", "Path of the TLS key"),
    Flag("tlsverify", "bool", "Use TLS and verify the daemon"),
    Flag("version", "bool", "Print version information and quit", "v"),
)
_ROOT_USAGE = "[OPTIONS] COMMAND [ARG...]"
LEVELS = ("debug", "info", "warn", "warning", "error", "fatal", "panic", "trace")  # logrus's
LIKE_DOCKER = "28.2.2"  # the release of docker's command line that ours is like


class App:
    """What every command is given: the global options; when asked, docker's config.json and the daemon."""

    def __init__(self, options: Values) -> None:
        self.options = options
        self._client: Client | None = None
        self._config: dict[str, Any] | None = None

    @property
    def config(self) -> dict[str, Any]:
        """Docker's own config.json; empty where there is none."""
        if self._config is None:
            folder = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
            self._config = {}
            if os.path.exists(os.path.join(folder, "config.json")):
                from sampan.cli.docker_config import settings

                self._config = settings()
        return self._config

    @property
    def client(self) -> Client:
        """The daemon; connected (and started, where it may be) at the first request."""
        if self._client is None:
            from sampan.cli.client import Client
            from sampan.cli.hosts import chosen_host

            host = chosen_host(self.options, self.config)
            host.headers = self._headers()
            self._client = Client(host)
        return self._client

    def close(self) -> None:
        """Give up the connection to the daemon, if there is one."""
        if self._client is not None:
            self._client.close()

    def _headers(self) -> dict[str, str]:
        """What the user adds to each request: DOCKER_CUSTOM_HEADERS, else HttpHeaders of config.json."""
        if os.environ.get("DOCKER_CUSTOM_HEADERS") or self.config.get("HttpHeaders"):
            from sampan.cli.docker_config import headers

            return headers(self.config, os.environ.get("DOCKER_CUSTOM_HEADERS", ""))
        return {}


def out(text: str) -> None:
    """Write to standard output."""
    sys.stdout.write(text)


def line(text: str) -> None:
    """Write one line to standard output."""
    sys.stdout.write(text + "\n")


def warn(text: str) -> None:
    """Write one line to standard error, after what standard output has been given."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")


def run_process() -> None:
    """Run `sys.argv` and end the process at once, without the interpreter's own tear-down."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and stream.encoding != "utf-8":
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    code = 1
    try:
        code = dispatch(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        code = 141  # as a program that SIGPIPE ended
    except KeyboardInterrupt:
        code = 130
    except OSError as error:
        sys.stderr.write(f"{program()}: {describe(error)}\n")
    except Exception as error:
        sys.stderr.write(f"sampan: internal error: {type(error).__name__}: {error}\n")
        if os.environ.get("SAMPAN_DEBUG"):
            sys.excepthook(type(error), error, error.__traceback__)
    try:
        sys.stderr.flush()
    finally:
        os._exit(code)


def describe(error: OSError) -> str:
    """An OSError as Go would print it: what, where, why."""
    reason = (error.strerror or str(error)).lower()
    return f"open {error.filename}: {reason}" if error.filename else reason


def dispatch(words: Sequence[str]) -> int:
    """Run one command line; returns the exit code, having shown every failure."""
    try:
        return _dispatch(words)
    except Exit as end:
        return end.code
    except UsageError as error:
        warn(error.message)
        return error.code
    except CommandError as error:
        warn(error.message)
        return error.code


def _dispatch(words: Sequence[str]) -> int:
    try:
        options, rest = parse(GLOBAL_FLAGS, words, interspersed=False)
    except HelpWanted:
        return _help([])
    except Problem as problem:
        raise usage_error("", _ROOT_USAGE, str(problem)) from None
    if options.on("version"):
        from sampan import __version__

        # Scripts that look for docker compare what release its command line has.
        ours = f"Sampan version {__version__}"
        line(ours if program() == "sampan" else f"Docker version {LIKE_DOCKER}, build sampan-{__version__}")
        return 0
    if options.text("log-level") not in LEVELS:
        raise CommandError(f"Unable to parse logging level: {options.text('log-level')}")
    if options.given("config"):
        os.environ["DOCKER_CONFIG"] = options.text("config")
    if not rest or rest == ["help"]:
        return _help([])
    if rest[0] == "help":
        return _help(rest[1:])
    app = App(options)
    _try_plugin(app, words, rest)
    command, path, arguments = find(rest)
    if command is None:
        return _group(path, arguments)
    return invoke(app, command, path, arguments)


def _try_plugin(app: App, words: Sequence[str], rest: Sequence[str]) -> None:
    """Become a plugin of docker's client, where the command is none of ours, or an alias for a plugin's."""
    name = rest[0]
    if name in TOP or (name in GROUPS and name != "builder"):
        return
    wanted = str((app.config.get("aliases") or {}).get(name) or name)
    if wanted in TOP or wanted in GROUPS:
        return
    from sampan.cli import plugins

    path = plugins.find(app, wanted)
    if path:
        place = len(words) - len(rest)
        plugins.run(app, path, [*words[:place], wanted, *rest[1:]])


def invoke(app: App, command: Command, path: str, words: Sequence[str]) -> int:
    """Parse the words after a command's name and do it."""
    if command.flags is None:
        return command.action(app, Values(()), list(words))
    try:
        values, arguments = parse(command.flags, words, command.interspersed)
    except HelpWanted:
        from sampan.cli.help import command_help

        out(command_help(command, path))
        return 0
    except Problem as problem:
        raise usage_error(path, usage_line(command, path), str(problem)) from None
    check_count(command, path, len(arguments))
    try:
        return command.action(app, values, arguments)
    except (Exit, UsageError):
        raise
    except ConnectionFailed as error:
        raise _hinted(command, path, error) from None
    except CommandError as error:
        raise _hinted(command, path, error) from None
    except ValueError as error:
        raise _hinted(command, path, CommandError(str(error))) from None
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except OSError as error:
        raise _hinted(command, path, CommandError(describe(error))) from None


def _hinted(command: Command, path: str, error: CommandError) -> CommandError:
    """The error as this command shows it: run and create name the program and hint at their help."""
    if not command.with_help:
        return error
    code = error.code if error.code != 1 else command.failure
    name = program()
    return CommandError(f"{name}: {error.message}\n\nRun '{name} {path} --help' for more information", code)


def find(words: Sequence[str]) -> tuple[Command | None, str, list[str]]:
    """The command that a line names, the name it was called by, and the words after it.

    No command means a group alone, or followed by a word that it has no command for.
    """
    name = words[0]
    if name in TOP:
        return _load(TOP[name][0], name), name, list(words[1:])
    if name in GROUPS:
        words = list(words[1:])
        if words and f"{name} {words[0]}" in NESTED:
            name, words = f"{name} {words[0]}", words[1:]
        if words:
            sub = ALIASES.get(name, {}).get(words[0], words[0])
            module = group(name)[1].get(sub)
            if module is not None:
                return _load(module, sub), f"{name} {sub}", words[1:]
        return None, name, words
    us = program()
    raise CommandError(
        f"{us}: unknown command: {us} {name}{_guess(name)}\n\nRun '{us} --help' for more information"
    )


def _load(module: str, name: str) -> Command:
    module, _, key = module.partition(":")
    loaded = __import__(f"sampan.cli.commands.{module}", fromlist=["COMMAND"])
    if key:
        found: Command = loaded.COMMANDS[key]
    else:
        found = loaded.COMMAND
    return found


def _group(path: str, words: Sequence[str]) -> int:
    if not words and path != "completion":
        from sampan.cli.help import group_help

        warn(group_help(path).rstrip("\n"))
        return 0
    if not words or words[0] in ("--help", "-h", "help"):
        return _help(path.split())
    usage = f"{path} COMMAND" if path in ("manifest", "volume") else path  # as docker has it
    if words[0].startswith("-"):
        flag = words[0].split("=", 1)[0]
        text = (
            f"unknown flag: {flag}"
            if flag.startswith("--")
            else f"unknown shorthand flag: {flag[1:2]!r} in {flag}"
        )
        raise usage_error(path, usage, text)
    us = program()
    raise CommandError(
        f"{us}: unknown command: {us} {path} {words[0]}{_guess(words[0], path)}\n\n"
        f"Usage:  {us} {usage}\n\nRun '{us} {path} --help' for more information"
    )


def _guess(name: str, path: str = "") -> str:
    from sampan.cli.guessing import guess, missing

    absent = missing(name)
    if absent and path in ("", "image"):
        return absent
    if path:
        known = {*group(path)[1], *below(path), *ALIASES.get(path, {})} - set(HIDDEN.get(path, ()))
    else:
        known = {*TOP, *GROUPS} - set(HIDDEN[""])
    return guess(name, sorted(known))


def _help(words: Sequence[str]) -> int:
    from sampan.cli.help import command_help, group_help, root_help

    if not words:
        out(root_help())
        return 0
    command, path, rest = find(words)
    if command is not None and command.flags is None:
        return invoke(App(Values(())), command, path, ["--help"])
    if command is not None:
        out(command_help(command, path))
    elif rest:
        return _group(path, rest)
    else:
        out(group_help(path))
    return 0
