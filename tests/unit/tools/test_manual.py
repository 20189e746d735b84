"""The manual that tools/manual.py makes of the commands: whole, and in order for man(1)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def make(*words: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "manual.py", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    make("man", folder)
    return folder / "man1"


def test_every_command_has_a_page(pages: Path) -> None:
    names = {path.name for path in pages.iterdir()}
    assert {"sampan.1", "sampan-run.1", "sampan-container.1", "sampan-container-ls.1"} <= names
    assert not any("complete" in name.split("-")[-1] and "__" in name for name in names)
    for reference in re.findall(r"\.BR (sampan\S*) \(1\)", (pages / "sampan.1").read_text()):
        assert f"{reference.replace(chr(92), '')}.1" in names


def test_a_page_says_what_help_says(pages: Path) -> None:
    text = (pages / "sampan-run.1").read_text()
    assert ".B \\-m, \\-\\-memory bytes\nMemory limit." in text
    assert ".B sampan run [OPTIONS] IMAGE [COMMAND] [ARG...]" in text
    assert "dns\\-opt " not in text  # hidden
    for line in text.splitlines():
        assert not line.startswith("'"), line


def test_the_daemon_has_one_too(pages: Path) -> None:
    text = (pages.parent / "man8" / "sampand.8").read_text()
    assert ".B \\-l, \\-\\-log\\-level LEVEL\ndebug, info, warn, error or fatal." in text
    assert "In the file: hosts" in text


def test_man_takes_them(pages: Path) -> None:
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("needs man and groff")
    for name in ("sampan.1", "sampan-run.1", "sampan-context-create.1", "../man8/sampand.8"):
        done = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-l", pages / name],
            capture_output=True,
            text=True,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat"},
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert "SYNOPSIS" in done.stdout


def test_the_reference(tmp_path: Path) -> None:
    make("markdown", tmp_path / "reference.md")
    text = (tmp_path / "reference.md").read_text()
    assert "\n## sampan container ls\n" in text and "| `-m, --memory bytes` | Memory limit. |" in text
