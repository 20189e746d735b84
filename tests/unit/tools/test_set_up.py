"""The first run: `./sampan` from anywhere, what it says when it cannot; what was cut short is repeated."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]

# The program learns by which name it was called.
CLI = "-I|-c|import sys; del sys.argv[0]; from sampan.cli import main; main()"


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout at an awkward place, set up, with a Python that says how it was called."""
    root = tmp_path / "with space é" / "checkout"
    root.mkdir(parents=True)
    for name in ("sampan", "test", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    script(root / ".venv/bin/python", 'printf "%s|" "$@"')
    (root / ".venv/.sampan-installed").touch()
    os.utime(root / "pyproject.toml", (1, 1))
    return root


def run(*words: str | Path, cwd: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PATH": path} if path else {})}
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_from_any_place_and_by_links(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sampan").symlink_to(checkout / "sampan")
    (tmp_path / "bin/again").symlink_to("sampan")
    assert run("./sampan", "run", "a b", "", cwd=checkout).stdout == f"{CLI}|./sampan|run|a b||"
    whole = checkout / "sampan"
    assert run(whole, "run", "a b", "", cwd=Path("/")).stdout == f"{CLI}|{whole}|run|a b||"
    for name in ("sampan", "again"):
        by_path = f"{tmp_path}/bin:{os.environ['PATH']}"
        called = f"{CLI}|{tmp_path}/bin/{name}|run|a b||"
        assert run(name, "run", "a b", "", cwd=Path("/"), path=by_path).stdout == called
    assert run("./sampan", "daemon", "-D", cwd=checkout).stdout == "-I|-m|sampan.daemon|-D|"


def test_a_checkout_that_was_moved_goes_on_working(checkout: Path, tmp_path: Path) -> None:
    checkout.rename(tmp_path / "elsewhere")
    assert run("./sampan", "ps", cwd=tmp_path / "elsewhere").stdout == f"{CLI}|./sampan|ps|"


@pytest.mark.parametrize("harm", ["stamp", "python", "requirements"])
def test_what_is_not_set_up_is(checkout: Path, tmp_path: Path, harm: str) -> None:
    if harm == "requirements":
        (checkout / "pyproject.toml").touch()
    else:
        (checkout / {"stamp": ".venv/.sampan-installed", "python": ".venv/bin/python"}[harm]).unlink()
    log = tmp_path / "log"
    script(tmp_path / "bin/python3", f'case "$*" in *environment*) echo "$@" >>{log}; exit 1;; esac')
    done = run("./sampan", "ps", cwd=checkout, path=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert done.returncode == 125
    assert log.read_text() == f"-I {checkout}/./tools/environment.py\n"


@pytest.mark.parametrize(("program", "code"), [("./sampan", 125), ("./test", 1)])
def test_too_old_a_python(checkout: Path, tmp_path: Path, program: str, code: int) -> None:
    (checkout / ".venv/.sampan-installed").unlink()
    old = tmp_path / "old"
    for version in ("3", "3.11", "3.12", "3.13", "3.14"):
        script(old / f"python{version}", "exit 1")
    for tool in ("sh", "readlink", "dirname"):
        (old / tool).symlink_to(shutil.which(tool) or tool)
    done = run(program, cwd=checkout, path=str(old))
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert "no Python 3.11 or newer found; install one first" in done.stderr


# --- tools/environment.py ---

Answers = dict[str, tuple[int, str]]  # a word of a command: how that command ends


@pytest.fixture
def environment(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, Answers, list[str]]:
    """The module for a checkout that is not set up, the answers of the programs it runs, and what it ran."""
    (checkout / ".venv/.sampan-installed").unlink()
    spec = importlib.util.spec_from_file_location("set_up", checkout / "tools/environment.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    answers: Answers = {}
    ran: list[str] = []

    def quiet_run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        line = " ".join(map(str, command))
        ran.append(line)
        code, text = next((answer for word, answer in answers.items() if word in line), (0, ""))
        if "-m venv" in line and code == 0:
            (checkout / ".venv/lib/python3.11/site-packages").mkdir(parents=True)
        return subprocess.CompletedProcess(command, code, text)

    monkeypatch.setattr(module, "quiet_run", quiet_run)
    return module, answers, ran


Environment = tuple[ModuleType, Answers, list[str]]


def refusal(module: ModuleType) -> str:
    with pytest.raises(module.SetupError) as raised:
        module.ensure(dev=False)
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_a_set_up_that_broke_off_is_repeated(environment: Environment, checkout: Path) -> None:
    module, answers, ran = environment
    answers["import sys, pip"] = (1, "")
    answers["install"] = (1, "ERROR: Operation cancelled by user")
    assert "Operation cancelled" in refusal(module)
    assert not module.STAMPS[False].exists()
    del answers["install"]
    module.ensure(dev=False)
    assert module.STAMPS[False].read_bytes() == (checkout / "pyproject.toml").read_bytes()
    assert "--only-binary :all:" in ran[-1]
    (link,) = checkout.glob(".venv/lib/python*/site-packages/sampan.pth")
    assert not link.read_text().startswith("/"), "a path that a move would break"


@pytest.mark.parametrize(
    "said",
    [
        "WARNING: Retrying: NewConnectionError(…)\nERROR: No matching distribution found for h11>=0.14",
        "timed out",
    ],
)
def test_offline(environment: Environment, said: str) -> None:
    module, answers, _ = environment
    answers["--no-input"] = (1, said)
    assert refusal(module).startswith(
        "cannot install the Python packages: the package index cannot be reached; is this machine offline? ("
    )


def test_the_package_for_environments_is_named_or_installed(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, answers, ran = environment
    answers |= {"import sys, pip": (1, ""), "import ensurepip": (1, "")}
    monkeypatch.setattr(module.os, "geteuid", lambda: 1000)
    assert "(sudo apt-get install python3." in refusal(module)
    monkeypatch.setattr(module.os, "geteuid", lambda: 0)
    monkeypatch.setattr(module.shutil, "which", lambda program: f"/usr/bin/{program}")
    answers["apt-get install"] = (
        100,
        "Err:1 Could not resolve 'mirror.example'\nE: Unable to fetch some archives",
    )
    assert "the package archive cannot be reached; is this machine offline?" in refusal(module)
    assert any("apt-get update" in line for line in ran)
    del answers["apt-get install"]
    module.ensure(dev=False)
    assert any("apt-get install -y -q --no-install-recommends python3." in line for line in ran)


def test_a_checkout_that_may_not_be_written(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, ran = environment
    monkeypatch.setattr(module.os, "access", lambda path, mode: mode != os.W_OK)
    assert "the checkout must be writable once: use sudo, or a copy of your own" in refusal(module)
    assert not any("venv" in line.split() for line in ran)
