"""Plugins of docker's client: what they are given, and what is not taken for one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"
Run = Callable[..., subprocess.CompletedProcess[str]]
PLUGIN = """#!/bin/sh
printf '%s|' "$0" "$@" "$DOCKER_HOST"
echo; echo "${DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND##*/}"
exit 7
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "SAMPAN_"))}

    def runner(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sampan.cli", *words],
            env={**kept, "HOME": str(tmp_path), "PYTHONPATH": str(SOURCE), **more},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return runner


def install(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / f"docker-{name}"
    program.write_text(PLUGIN)
    program.chmod(0o755)
    return program


def test_a_plugin_is_a_command(run: Run, tmp_path: Path) -> None:
    program = install(tmp_path / ".docker" / "cli-plugins", "compose")
    done = run("compose", "-f", "a b", "up", SAMPAN_HOST="unix:///one")
    assert done.returncode == 7
    assert done.stdout == f"{program}|compose|-f|a b|up|unix:///one|\n__main__.py\n"
    done = run("-H", "unix:///two", "compose", "up")
    assert done.stdout.startswith(f"{program}|-H|unix:///two|compose|up|unix:///two|\n")


def test_a_context_is_the_plugins_own_business(run: Run, tmp_path: Path) -> None:
    install(tmp_path / ".docker" / "cli-plugins", "compose")
    run("context", "create", "mine", "--docker", "host=unix:///mine")
    assert "|compose|up||\n" in run("compose", "up", DOCKER_CONTEXT="mine").stdout


def test_other_folders_and_the_alias_of_builder(run: Run, tmp_path: Path) -> None:
    install(tmp_path / "more", "buildx")
    config = {"cliPluginsExtraDirs": [str(tmp_path / "more")], "aliases": {"builder": "buildx"}}
    (tmp_path / ".docker").mkdir()
    (tmp_path / ".docker" / "config.json").write_text(json.dumps(config))
    assert "|buildx|prune|unix:///x|" in run("builder", "prune", SAMPAN_HOST="unix:///x").stdout
    assert "|buildx|ls|unix:///x|" in run("buildx", "ls", SAMPAN_HOST="unix:///x").stdout


@pytest.mark.parametrize("name", ["../evil", "ps", "container", "UPPER", "a-b"])
def test_what_is_none(run: Run, tmp_path: Path, name: str) -> None:
    folder = tmp_path / ".docker" / "cli-plugins"
    install(folder, "x")
    (folder / f"docker-{name}").parent.mkdir(parents=True, exist_ok=True)
    install((folder / f"docker-{name}").parent, name.rpartition("/")[2])
    done = run(name, "--help", SAMPAN_HOST="unix:///x")
    assert done.returncode != 7


def test_what_cannot_be_executed_is_unknown(run: Run, tmp_path: Path) -> None:
    install(tmp_path / ".docker" / "cli-plugins", "compose").chmod(0o644)
    done = run("compose", "up")
    assert done.returncode == 1 and "unknown command: sampan compose" in done.stderr
