"""The manual's pages, made of the commands themselves: one for man(1) for each, and the daemon's.

They follow man-pages(7), their text man(7). Nothing of them is kept: what `--help` shows is the one source.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sampan import __version__
from sampan.cli import tree
from sampan.cli.app import GLOBAL_FLAGS, find
from sampan.cli.flags import REPEATED, Command, Flag, usage_line
from sampan.cli.tree import ALIASES, GROUPS, HIDDEN, NESTED, TOP, below
from sampan.daemon.options import TABLE

ENVIRONMENT = (
    ("SAMPAN_HOST, DOCKER_HOST", "The daemon, where --host and --context do not name one; the first counts."),
    ("DOCKER_CONTEXT", "The context to use, where none of the above is set."),
    ("DOCKER_TLS_VERIFY, DOCKER_TLS, DOCKER_CERT_PATH", "TLS to a tcp:// host, and where its files are."),
    ("DOCKER_CONFIG", "The folder of config.json and of the contexts, instead of ~/.docker."),
    ("DOCKER_CUSTOM_HEADERS", "Fields for each request, as name=value pairs separated by commas."),
    ("DOCKER_CONTENT_TRUST", "Refused when it is set: signatures of Notary cannot be checked."),
    ("NO_COLOR", "No colours in sampan ui; the other commands have none."),
)
FILES = (
    ("~/.docker/config.json", "Settings and credentials, shared with docker's client."),
    ("~/.docker/contexts", "Contexts, shared with docker's client."),
    ("/run/sampan/sampan.sock", "The socket of the machine's daemon."),
)
DAEMON_FILES = (
    ("/etc/sampan/daemon.json", "The configuration file: an object of options."),
    ("/var/lib/sampan", "Images, containers and volumes."),
    ("/run/sampan", "Sockets, and the files of running containers."),
)


def commands() -> Iterator[tuple[str, Command]]:
    """Every command by the name it is called by, hidden ones aside."""
    for name in sorted(TOP):
        if name not in HIDDEN.get("", ()):
            found = find([name])[0]
            assert found is not None
            yield name, found
    for group, (_, members) in sorted({**GROUPS, **NESTED}.items()):
        for name in sorted(members):
            if name not in HIDDEN.get(group, ()):
                found = find([*group.split(), name])[0]
                assert found is not None
                yield f"{group} {name}", found


def head_of(flag: Flag) -> str:
    """`-f, --filter filter`"""
    head = f"-{flag.short}, --{flag.name}" if flag.short else f"--{flag.name}"
    return head if flag.kind == "bool" else f"{head} {flag.kind}"


def more_of(flag: Flag) -> str:
    """What the help says in brackets, in words."""
    said = flag.usage.strip().rstrip(".")
    if flag.kind in REPEATED:
        said += ". May be given several times"
    elif flag.kind == "bool" and flag.default:
        said += ". On unless it is false"
    elif flag.kind not in ("bool",) and flag.default not in (None, "", 0, False):
        said += f". Default: {flag.default}"
    return said + "."


def shown(flags: tuple[Flag, ...] | list[Flag]) -> list[Flag]:
    return sorted((flag for flag in flags if not flag.hidden), key=lambda one: one.name)


def roff(text: str) -> str:
    """Text for a page: hyphens are those of a command line, and no line is a request."""
    safe = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in safe.split("\n"))


def page(name: str, summary: str, synopsis: str, parts: list[str]) -> str:
    """The page of the command line, or of a command of it."""
    title = f"sampan-{name.replace(' ', '-')}" if name else "sampan"
    return titled(title, 1, summary, f"sampan {synopsis}", parts)


def titled(title: str, section: int, summary: str, synopsis: str, parts: list[str]) -> str:
    """A whole page."""
    head = [
        f'.TH {roff(title.upper())} {section} "" "Sampan {__version__}" "Sampan\'s manual"',
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{roff(title)} \\- {roff(summary.rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {roff(synopsis)}",
    ]
    return "\n".join([*head, *parts]) + "\n"


def man_options(title: str, flags: list[Flag]) -> list[str]:
    lines = [f".SH {title}"] if flags else []
    for flag in flags:
        lines += [".TP", f".B {roff(head_of(flag))}", roff(more_of(flag))]
    return lines


def man_command(name: str, command: Command) -> str:
    """The page of one command."""
    parts = [".SH DESCRIPTION", roff(command.summary.rstrip(".") + ".")]
    if command.details:
        parts += [".PP", ".nf", roff(command.details), ".fi"]
    if len(command.aliases) > 1:
        parts += [".PP", "The same: " + roff(", ".join(f"sampan {one}" for one in command.aliases)) + "."]
    parts += man_options("OPTIONS", shown(list(command.flags or ())))
    parts += [".SH SEE ALSO", ".BR sampan (1)"]
    return page(name, command.summary, usage_line(command, name), parts)


def man_group(group: str) -> str:
    """The page of a group."""
    summary, members = tree.group(group)
    parts, within = [".SH COMMANDS"], below(group)
    for name in sorted({*members, *within} - set(HIDDEN.get(group, ()))):
        command = None if name in within else find([*group.split(), name])[0]
        said = within[name] if command is None else command.summary
        page_name = f"sampan-{group}-{name}".replace(" ", "-")
        parts += [".TP", f".BR {roff(page_name)} (1)", roff(said)]
    others = ALIASES.get(group)
    if others:
        same = ", ".join(f"{other} for {name}" for other, name in sorted(others.items()))
        parts += [".PP", roff(f"Other names: {same}.")]
    parts += [".SH SEE ALSO", ".BR sampan (1)"]
    return page(group, summary, f"{group} COMMAND", parts)


def man_root() -> str:
    """The page of the program."""
    parts = [
        ".SH DESCRIPTION",
        "A container engine for Linux. Its command line is docker's: grammar, output and exit codes.",
        ".SH COMMANDS",
    ]
    listed = [(name, command.summary) for name, command in commands() if " " not in name]
    listed += [(name, summary) for name, (summary, _) in GROUPS.items() if name not in HIDDEN.get("", ())]
    for name, summary in sorted(listed):
        parts += [".TP", f".BR sampan\\-{roff(name)} (1)", roff(summary)]
    parts += man_options("OPTIONS", shown(list(GLOBAL_FLAGS)))
    for title, pairs in (("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)):
        parts.append(f".SH {title}")
        for name, text in pairs:
            parts += [".TP", f".B {roff(name)}", roff(text)]
    parts += [
        ".SH EXIT STATUS",
        "0 for success, 1 for a failure, 125 for a wrong command line or a container that could not be made,",
        "126 and 127 for a program in it that cannot be executed or is not there, else what the container's",
        "own program ended with: 128 and the signal's number where a signal ended it.",
    ]
    parts += [".SH SEE ALSO", ".BR sampand (8)"]
    return page("", "A container engine for Linux", "[OPTIONS] COMMAND", parts)


def man_daemon() -> str:
    """The page of the daemon."""
    parts = [
        ".SH DESCRIPTION",
        "The daemon of the container engine Sampan. Containers run on while it is stopped, and the next one",
        "takes them over. Flags and the keys of its configuration file have dockerd's names.",
        ".SH OPTIONS",
    ]
    for option in TABLE:
        short = f"-{option.short}, " if option.short else ""
        said = option.help
        if option.key != "-":
            said += f". In the file: {option.name}{', taken over by SIGHUP' if option.reload else ''}"
        head = f"{short}--{option.flag} {option.placeholder}".rstrip()
        parts += [".TP", f".B {roff(head)}", roff(f"{said}.")]
    parts.append(".SH FILES")
    for name, text in DAEMON_FILES:
        parts += [".TP", f".B {roff(name)}", roff(text)]
    parts += [".SH SEE ALSO", ".BR sampan (1)"]
    return titled("sampand", 8, "The daemon of the container engine Sampan", "sampand [OPTIONS]", parts)


def write_man(folder: Path) -> int:
    """All pages, in the folders of their sections; how many."""
    pages = {"sampan": man_root()}
    for group in (*GROUPS, *NESTED):
        if group not in HIDDEN.get("", ()):
            pages[f"sampan-{group.replace(' ', '-')}"] = man_group(group)
    for name, command in commands():
        pages[f"sampan-{name.replace(' ', '-')}"] = man_command(name, command)
    for section in ("man1", "man8"):
        (folder / section).mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        (folder / "man1" / f"{name}.1").write_text(text)
    (folder / "man8" / "sampand.8").write_text(man_daemon())
    return len(pages) + 1
