"""Our commands and flags against those that `docker --help` shows, the whole tree of both.

What docker has and we do not is listed here, and the list must be exact: whoever adds a command or a flag
takes it out. A flag that we have must have docker's name, letter and type, and must behave as that type.

Docker's side is kept in tests/specs, since each release differs. This file, run as a program, writes it anew
from the docker client in the path; where that has the release, a test compares the two.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

from sampan.cli.app import GLOBAL_FLAGS, dispatch, find
from sampan.cli.flags import Flag, Problem, parse

SOURCE = Path(__file__).parents[3] / "src"
RELEASE = "28.2"
RECORD = Path(__file__).parents[2] / "specs" / f"docker-cli-v{RELEASE}.json"

# Whole groups that are another product's or another machine's business.
NEVER = {
    "builder": "BuildKit's cache; building is the plugin buildx's work",
    "buildx": "a plugin",
    "compose": "a plugin",
    "config": "Swarm",
    "node": "Swarm",
    "plugin": "engine plugins",
    "secret": "Swarm",
    "service": "Swarm",
    "stack": "Swarm",
    "swarm": "Swarm",
}

# What is still to come. Take out what you add.
MISSING_COMMANDS: set[str] = set()
MISSING_FLAGS: dict[str, set[str]] = {}

# What docker does not have.
UNHEALTHY = {"health-on-failure": "what to do with a container that has turned unhealthy, as podman's"}
DOCTOR = {
    "config": "a file instead of the machine",
    "data-root": "where to try",
    "json": "for programs",
}
SCRIPT = {"no-descriptions": "as docker has it, which does not show the command"}
EGRESS = {"egress": "where it may connect to"}
OURS = {
    "completion bash": SCRIPT,
    "completion fish": SCRIPT,
    "completion zsh": SCRIPT,
    "install-docker-alias": {"dir": "where to", "force": "replace another one", "remove": "the opposite"},
    "install-help": {"dir": "where to", "remove": "the opposite"},
    "stats": {"graph": "columns with the last seconds"},
    "container stats": {"graph": "columns with the last seconds"},
    "doctor": DOCTOR,
    "check-config": DOCTOR,
    "run": {**UNHEALTHY, **EGRESS, "explain": "what the engine did and when"},
    "container run": {**UNHEALTHY, **EGRESS, "explain": "what the engine did and when"},
    "create": {**UNHEALTHY, **EGRESS},
    "container create": {**UNHEALTHY, **EGRESS},
    "network create": EGRESS,
    "network policy log": {
        "follow": "as that of logs",
        "format": "for programs",
        "network": "not a container",
    },
    "network policy set": {"network": "not a container"},
    "network policy show": {"format": "for programs", "network": "not a container"},
    "exec": {"timeout": "ends the command and all that it started"},
    "container exec": {"timeout": "ends the command and all that it started"},
    "build": {"secret": "as buildx's"},
    "image build": {"secret": "as buildx's"},
    "push": {"compression": "which compression layers are sent with"},
    "image push": {"compression": "which compression layers are sent with"},
    "system check": {"json": "for programs", "repair": "mend what was found"},
}

_HEAD = re.compile(r"^ {2}(?:-(?P<short>\w), |    )--(?P<name>[\w-]+)(?: (?P<kind>\S+))?(?: {2,}|$)")
_COMMAND = re.compile(r"^ {2}(?P<name>[a-z][\w-]*)\*? {2,}\S")


@dataclass
class Page:
    """One help text."""

    usage: str = ""
    aliases: set[str] = field(default_factory=set)
    commands: list[str] = field(default_factory=list)
    flags: dict[str, tuple[str, str]] = field(default_factory=dict)  # name: letter, type


def read_page(text: str, program: str) -> Page:
    """What a help text says, by cobra's layout."""
    page, section = Page(), ""
    for line in text.splitlines():
        if line.startswith("Usage:"):
            page.usage = line.removeprefix("Usage:").strip().removeprefix(program).strip()
        elif line and not line.startswith(" "):
            section = line
        elif section == "Aliases:":
            page.aliases |= {
                one.strip().removeprefix(program).strip() for one in line.split(",") if one.strip()
            }
        elif section.endswith("Options:"):
            if found := _HEAD.match(line):
                page.flags[found["name"]] = (found["short"] or "", found["kind"] or "bool")
        elif section.endswith(("Commands:", "Commands")) and (found := _COMMAND.match(line)):
            page.commands.append(found["name"])
    return page


def tree(show: Callable[[list[str]], str], name: str) -> dict[str, Page]:
    """Every page below `program --help`, by the words that lead to it; `show` gives what these words show."""
    pages: dict[str, Page] = {}
    todo = [""]
    while todo:
        path = todo.pop()
        page = pages[path] = read_page(show([*path.split(), "--help"]), name)
        todo += [
            f"{path} {command}".strip() for command in page.commands if not (path == "" and command in NEVER)
        ]
    return pages


def program(home: str, *command: str) -> Callable[[list[str]], str]:
    """What a client shows as a process of its own."""

    def show(words: list[str]) -> str:
        done = subprocess.run(
            [*command, *words], capture_output=True, text=True, env=environment(home), check=False
        )
        assert done.returncode == 0, f"{command} {words}: {done.stderr}"
        return done.stdout

    return show


def ours(home: str) -> Callable[[list[str]], str]:
    """What our command line shows: in this process, unless the command becomes another program."""
    process = program(home, sys.executable, "-m", "sampan.cli")

    def show(words: list[str]) -> str:
        command = find(words[:-1])[0] if words[:-1] else None
        if not words[:-1] or (command is not None and command.flags is None):
            return process(words)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            assert dispatch(words) == 0
        return said.getvalue()

    return show


def environment(home: str) -> dict[str, str]:
    """One without plugins, contexts or a daemon."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "SAMPAN_"))}
    return {
        **kept,
        "HOME": home,
        "DOCKER_CONFIG": home,
        "DOCKER_HOST": "unix:///nowhere",
        "PYTHONPATH": str(SOURCE),
    }


def recorded() -> dict[str, Page]:
    """Docker's pages."""
    return {
        path: Page(
            usage=page["usage"],
            aliases=set(page["aliases"]),
            commands=page["commands"],
            flags={name: (short, kind) for name, (short, kind) in page["flags"].items()},
        )
        for path, page in json.loads(RECORD.read_text()).items()
    }


def record() -> None:
    """Write docker's pages down."""
    with tempfile.TemporaryDirectory() as home:
        pages = tree(program(home, "docker"), "docker")
    plain = {path: {**asdict(page), "aliases": sorted(page.aliases)} for path, page in sorted(pages.items())}
    RECORD.write_text(json.dumps(plain, indent=1, sort_keys=True) + "\n")


@pytest.fixture(scope="module")
def docker() -> dict[str, Page]:
    return recorded()


@pytest.fixture(scope="module")
def sampan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    home = str(tmp_path_factory.mktemp("home"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "environ", environment(home))
        return tree(ours(home), "sampan")


def test_the_record_is_dockers(docker: dict[str, Page], tmp_path: Path) -> None:
    found = shutil.which("docker")
    said = (
        subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
        if found
        else ""
    )
    if f"version {RELEASE}." not in said:
        pytest.skip(f"needs the program docker of release {RELEASE}")
    assert tree(program(str(tmp_path), "docker"), "docker") == docker


def test_the_walk_sees_the_whole_tree(docker: dict[str, Page], sampan: dict[str, Page]) -> None:
    assert len(docker) > 80 and len(sampan) > 60
    assert docker["run"].flags["memory"] == ("m", "bytes")
    assert docker["container ls"].flags["all"] == ("a", "bool")


def test_commands(docker: dict[str, Page], sampan: dict[str, Page]) -> None:
    missing = set(docker) - set(sampan)
    print("commands that sampan does not have:", *sorted(missing), sep="\n  ")
    assert missing == MISSING_COMMANDS


def test_flags(docker: dict[str, Page], sampan: dict[str, Page]) -> None:
    missing = {
        path: absent
        for path, page in docker.items()
        if path in sampan and (absent := set(page.flags) - set(sampan[path].flags))
    }
    print("flags that sampan does not have:")
    for path, names in missing.items():
        print(f"  {path}: {' '.join(sorted(names))}")
    assert missing == MISSING_FLAGS


def test_nothing_is_made_up(docker: dict[str, Page], sampan: dict[str, Page]) -> None:
    extra = {
        path: added
        for path, page in sampan.items()
        if (added := set(page.flags) - set(docker[path].flags if path in docker else ()))
    }
    assert extra == {path: set(flags) for path, flags in OURS.items()}


def both(docker: dict[str, Page], sampan: dict[str, Page]) -> Iterator[tuple[str, Page, Page]]:
    return ((path, docker[path], sampan[path]) for path in sampan if path in docker)


def test_usage_and_aliases(docker: dict[str, Page], sampan: dict[str, Page]) -> None:
    for path, theirs, own in both(docker, sampan):
        assert (path, own.usage) == (path, theirs.usage)
        assert (path, own.aliases) == (path, theirs.aliases)


def test_letters_and_types(docker: dict[str, Page], sampan: dict[str, Page]) -> None:
    wrong = [
        f"{path} --{name}: docker has {theirs.flags[name]}, sampan {own.flags[name]}"
        for path, theirs, own in both(docker, sampan)
        for name in set(theirs.flags) & set(own.flags)
        if theirs.flags[name] != own.flags[name]
    ]
    assert wrong == []


NUMERIC = {"int", "uint", "int64", "uint16", "decimal", "bytes", "duration"}


def test_flags_behave_as_their_type(docker: dict[str, Page], sampan: dict[str, Page]) -> None:
    """Spoken to our own parser, as docker's parser answers for each type that its help names."""
    for path, theirs, _ in both(docker, sampan):
        command = find(path.split())[0] if path else None
        flags: tuple[Flag, ...] = tuple(command.flags) if command is not None else GLOBAL_FLAGS
        if path and command is None:
            continue  # a group has none
        for flag in flags:
            if flag.name not in theirs.flags or flag.name == "help":
                continue
            kind = theirs.flags[flag.name][1]
            word = f"--{flag.name}"
            if kind == "bool":
                assert parse(flags, [word, "next"], True)[1] == ["next"], f"{path} {word} takes an argument"
                assert not parse(flags, [f"{word}=false"], True)[0].on(flag.name)
                refuses(flags, f"{word}=maybe")
                continue
            with pytest.raises(Problem, match="flag needs an argument"):
                parse(flags, [word], True)
            if kind in NUMERIC:
                refuses(flags, f"{word}=not-a-number")


def refuses(flags: tuple[Flag, ...], word: str) -> None:
    with pytest.raises(Problem, match="invalid argument"):
        parse(flags, [word], True)


if __name__ == "__main__":
    record()
