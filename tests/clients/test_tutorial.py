"""docs/tutorial: every command of the pages runs in one shell and answers as shown (`…` is anything)."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.engine import SOURCE, Daemon
from support.own_registry import OwnRegistry

PAGES = SOURCE.parent / "docs" / "tutorial"
MARK = "=== the tutorial's next command ==="


def blocks(language: str) -> list[str]:
    """The command blocks of a page."""
    return re.findall(r"```console\n(.*?)```", (PAGES / f"{language}.md").read_text(), re.DOTALL)


def commands(block: str) -> list[tuple[str, str]]:
    """Each command of a block with the answer that the page shows."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert parts[0] == "", f"a block begins with an answer: {block}"
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts[1:]]


def fits(shown: str, said: str) -> bool:
    """Whether an answer is the one shown; columns may be wider."""
    pattern = re.escape(shown.strip()).replace("…", ".*")
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


@pytest.fixture
def daemon_of_the_page(make_daemon: Callable[..., Daemon], tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose Docker Hub is a mirror on loopback, with busybox in it."""
    with OwnRegistry(tmp_path / "hub") as hub:
        made = make_daemon(config=f'{{"registry-mirrors": ["{hub.url}"]}}').start()
        name = f"{hub.host}/library/{made.busybox}"
        made.docker("tag", "busybox", name)
        made.docker("push", name)
        made.docker("rmi", "busybox", name)
        yield made
        made.end()


def test_both_languages_have_the_same_commands() -> None:
    assert blocks("en") == blocks("zh")
    assert len(blocks("en")) > 8


@pytest.mark.release28
@pytest.mark.parametrize("client", ["sampan", "docker"])
def test_every_command(client: str, daemon_of_the_page: Daemon, tmp_path: Path) -> None:
    """With either client; `registry` and `doctor` are ours alone."""
    cli = daemon_of_the_page.sampan
    other = shlex.join(daemon_of_the_page.cli(client).program)
    typed = [one for block in blocks("en") for one in commands(block)]
    script = [
        f'ours() {{ command {shlex.join(cli.program)} "$@"; }}',
        f'sampan() {{ if [ $1 = doctor ]; then ours doctor; else command {other} "$@"; fi; }}',
    ]
    for command, _ in typed:
        script += [f"echo {shlex.quote(MARK)}", command, 'echo "exit $?"']
    # A background command of a shell's function is a subshell: $! has to be the program itself.
    text = "\n".join(script).replace("\nsampan registry serve", f"\n{shlex.join(cli.program)} registry serve")
    folder = tmp_path / "here"
    folder.mkdir()
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env={**cli.environment, "SAMPAN_HOST": cli.host, "DOCKER_HOST": cli.host},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    answers = done.stdout.split(f"{MARK}\n")[1:]
    assert len(answers) == len(typed), done.stdout
    wrong = [
        f"$ {command}\n{said}instead of\n{shown}"
        for (command, shown), said in zip(typed, answers, strict=True)
        if not fits(f"{shown}exit 0", said)
    ]
    assert not wrong, "\n".join(wrong)
