"""What `sampan install-help` puts in place: pages for man(1), whole and in order, and completion."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def install_help(*words: str | Path, status: int = 0, **environment: str) -> str:
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), **environment}
    command = [sys.executable, "-m", "sampan.cli", "install-help", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def share(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("share")
    assert "pages of the manual" in install_help("--dir", folder)
    return folder


@pytest.fixture(scope="module")
def pages(share: Path) -> Path:
    return share / "man" / "man1"


def test_shells_find_their_scripts(share: Path) -> None:
    for place in (
        "bash-completion/completions/sampan",
        "zsh/site-functions/_sampan",
        "fish/vendor_completions.d/sampan.fish",
    ):
        assert "__complete" in (share / place).read_text()


def test_what_an_older_release_had_goes_and_what_is_anothers_stays(tmp_path: Path) -> None:
    man = tmp_path / "man" / "man1"
    man.mkdir(parents=True)
    for name in ("sampan-gone.1", "sampling.1"):
        (man / name).write_text("")
    install_help("--dir", tmp_path)
    assert not (man / "sampan-gone.1").exists() and (man / "sampan-run.1").exists()
    install_help("--remove", "--dir", tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["sampling.1"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = install_help("--dir", tmp_path / "file", status=1)
    assert said.count("\n") == 1 and "not a directory; --dir names another folder" in said


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
    command = [sys.executable, ROOT / "tools" / "manual.py", tmp_path / "reference.md"]
    subprocess.run(command, check=True)
    text = (tmp_path / "reference.md").read_text()
    assert "\n## sampan container ls\n" in text and "| `-m, --memory bytes` | Memory limit. |" in text
