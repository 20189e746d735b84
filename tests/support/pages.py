"""The pages of the documentation as a reader gets them: the site is built once a run, and its HTML read.

A block of commands is one of the language `console`. A line after `$ ` is typed; the lines up to the next are
what it answers, `…` for anything. Lines of an answer that begin with `/ # ` are typed in turn, into the
terminal of the command above (`tests/support/typist.py`).
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

from support.cli import Cli

ROOT = Path(__file__).resolve().parents[2]
TYPIST = Path(__file__).resolve().parent / "typist.py"
MARK = "=== the next command of the page ==="
PROMPT = "/ # "
OURS = ("completion", "doctor", "install-docker-alias", "registry", "ui")  # what docker's client has not


@cache
def site() -> Path:
    """The folder of the built site, the same for all rows of tests of a run."""
    shared = Path(os.environ.get("PYTEST_DEBUG_TEMPROOT") or tempfile.mkdtemp(prefix="sampan-site-"))
    target = shared / "site"
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            command = [sys.executable, ROOT / "tools" / "site.py", target]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    return target


@dataclass
class Block:
    """A block of code on a page: its language as the page has it, and its text."""

    language: str
    text: str = ""


@dataclass
class Page(HTMLParser):
    """What tests look at in a page of HTML.

    Attributes:
        blocks: of code.
        links: where it leads to.
        loaded: what a browser fetches to show it.
        anchors: places that links may lead to.
        attributes: of the element html.
    """

    source: str
    blocks: list[Block] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    attributes: dict[str, str] = field(default_factory=dict)
    _language: str = ""
    _inside: bool = False

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            self.anchors.add(given["id"])
        if tag == "html":
            self.attributes = given
        elif tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and "href" in given:
            self.loaded.append(given["href"])
        elif tag in ("script", "img", "iframe", "source") and "src" in given:
            self.loaded.append(given["src"])
        elif tag == "div" and (found := re.match(r"highlight-(\S+) ", given.get("class", "") + " ")):
            self._language = found[1]
        elif tag == "pre":
            self._inside = True
            self.blocks.append(Block(self._language))

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.blocks[-1].text += data


@cache
def page(name: str) -> Page:
    """A page of the built site, as `tutorial/en`."""
    return Page((site() / f"{name}.html").read_text())


def blocks(name: str) -> list[str]:
    """The blocks of commands of a page."""
    return [block.text for block in page(name).blocks if block.language == "console"]


@dataclass(frozen=True)
class Typed:
    """A command of a page, what is typed into its terminal, and the answer that the page shows."""

    command: str
    keys: tuple[str, ...]
    shown: str


def commands(name: str) -> list[Typed]:
    """All commands of a page, from the first to the last."""
    found = []
    for block in blocks(name):
        parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
        assert parts[0] == "", f"a block begins with an answer: {block}"
        for part in parts[1:]:
            lines = part.split("\n")
            command = lines.pop(0)
            while command.endswith("\\"):
                command += "\n" + lines.pop(0)
            keys = tuple(line.removeprefix(PROMPT) for line in lines if line.startswith(PROMPT))
            found.append(Typed(command, keys, "\n".join(lines)))
    return found


def fits(shown: str, said: str) -> bool:
    """Whether an answer is the one shown; no page shows blanks at the end of a line."""
    pattern = re.escape(shown.strip()).replace("…", ".*")
    said = re.sub(r" +$", "", said, flags=re.MULTILINE)
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


def run(
    name: str,
    ours: Cli,
    other: Cli,
    scratch: Path,
    addresses: dict[str, str] | None = None,
    timeout: float = 200,
) -> None:
    """Run all commands of a page, in one shell in an empty folder: each answers as shown, and ends with 0.

    Args:
        ours: our command line.
        other: what `sampan` is on the page: ours, or docker's client, but for commands that only ours has.
        addresses: what stands for those that the page names.
    """
    programs = scratch / "bin"
    programs.mkdir()
    choice = f'case $1 in {"|".join(OURS)}) exec {shlex.join(ours.program)} "$@";; esac'
    _program(programs / "sampan", f'{choice}\nexec {shlex.join(other.program)} "$@"')
    daemon = [sys.executable, "-m", "sampan.daemon"]
    _program(programs / "sampand", f'exec {shlex.join(daemon)} "$@"')
    _program(programs / "typist", f'exec {shlex.quote(sys.executable)} {shlex.quote(str(TYPIST))} "$@"')
    typed = commands(name)
    script = []
    for one in typed:
        line = one.command
        for written, meant in (addresses or {}).items():
            line = line.replace(written, meant)
        if one.keys:
            line = shlex.join(["typist", line, *one.keys])
        script += [f"echo {shlex.quote(MARK)}", line, 'echo "exit $?"']
    folder = scratch / "here"
    folder.mkdir()
    environment = {**ours.environment, "SAMPAN_HOST": ours.host, "DOCKER_HOST": ours.host}
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env={**environment, "PATH": f"{programs}:{environment['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    answers = done.stdout.split(f"{MARK}\n")[1:]
    assert len(answers) == len(typed), done.stdout
    wrong = [
        f"$ {one.command}\n{said}instead of\n{one.shown}"
        for one, said in zip(typed, answers, strict=True)
        if not fits(f"{one.shown.rstrip()}\nexit 0", said)
    ]
    assert not wrong, "\n".join(wrong)


def _program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
