"""`search`: what docker's client and ours make of one registry's answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.unix_http import answering

SOURCE = Path(__file__).parents[3] / "src"
FOUND = [
    {
        "name": "busybox",
        "description": "A busybox whose description goes on for longer than a table has room",
        "is_official": True,
        "star_count": 3300,
    },
    {"name": "me/x", "description": "a line\nbreak <b>", "is_official": False, "star_count": 0},
]
LINES = (
    ("x",),
    ("--no-trunc", "x"),
    ("--limit", "3", "--filter", "stars=3", "x"),
    ("--format", "json", "x"),
    ("--format", "{{json .}}", "x"),
    ("--format", "table {{.Name}}\t{{.StarCount}}", "x"),
    ("--format", "{{.IsOfficial}} {{.Description}}", "x"),
    ("--format", "{{.Foo}}", "x"),
    ("--filter", "foo", "x"),
    (),
)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """An engine that answers every request with the same images."""

    with answering(tmp_path / "sock", lambda *_: FOUND, {"Api-Version": "1.51"}) as address:
        yield address


def test_both_say_the_same(host: str, tmp_path: Path) -> None:
    docker = shutil.which("docker")
    said = docker and subprocess.run([docker, "--version"], capture_output=True, text=True, check=True).stdout
    if not said or "version 28." not in said:
        pytest.skip("needs the program docker of release 28")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "SAMPAN_"))}
    environment = {**kept, "HOME": str(tmp_path), "PYTHONPATH": str(SOURCE)}

    def run(program: list[str], words: tuple[str, ...]) -> tuple[int, str, str]:
        done = subprocess.run(
            [*program, "-H", host, "search", *words],
            env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr.replace("sampan", "docker")

    for words in LINES:
        assert run([sys.executable, "-m", "sampan.cli"], words) == run(["docker"], words), words
