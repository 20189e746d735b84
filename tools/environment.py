"""Makes or mends the checkout's own environment, `.venv`: a venv with what pyproject.toml asks for.

Run by ./sampan and ./test with any Python of 3.11 or newer, before anything of the project can be imported,
so stdlib only. The source tree is put on the environment's path by a relative `.pth` file: nothing is
built, and a checkout that is moved goes on working. Two runs at once wait for one another.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMPS = {False: VENV / ".sampan-installed", True: VENV / ".sampan-installed-dev"}

INDEX = "package index"
_NO_NETWORK = (
    "NewConnectionError",
    "Temporary failure",
    "Could not resolve",
    "Network is unreachable",
    "timed out",
)


class SetupError(Exception):
    """Why the environment could not be made, in one line."""


def requirements(dev: bool) -> list[str]:
    """The requirement strings of pyproject.toml: the run-time ones, with `dev` also those of the tests."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted: list[str] = list(project["dependencies"])
    if dev:
        wanted += project["optional-dependencies"]["dev"]
    return wanted


def quiet_run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program with its output kept for a possible error message."""
    environment = dict(os.environ, PIP_ROOT_USER_ACTION="ignore", DEBIAN_FRONTEND="noninteractive")
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        environment.pop(name, None)
    return subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        check=False,
    )


def last_line(text: str) -> str:
    """The line of a program's output that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "e:"))]
    return (errors or lines or ["no output"])[-1]


def reason(text: str, place: str) -> str:
    """Why a program that fetches from `place` failed; what it says itself is misleading without a network."""
    if any(sign in text for sign in _NO_NETWORK):
        hint = (
            " (PIP_INDEX_URL, PIP_FIND_LINKS name a mirror or a folder of wheels)" if place == INDEX else ""
        )
        return f"the {place} cannot be reached; is this machine offline?{hint}"
    return last_line(text)


def ensure_venv_module() -> None:
    """See that this Python can make environments: on Debian `ensurepip` is in a package of its own."""
    if quiet_run(sys.executable, "-I", "-c", "import ensurepip, venv").returncode == 0:
        return
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise SetupError(
            f"this Python cannot make environments; install {package} (sudo apt-get install {package})"
        )
    install = ("apt-get", "install", "-y", "-q", "--no-install-recommends", package)
    if quiet_run(*install).returncode != 0:
        quiet_run("apt-get", "update", "-q")
        done = quiet_run(*install)
        if done.returncode != 0:
            raise SetupError(f"cannot install {package}: {reason(done.stdout, 'package archive')}")


def usable() -> bool:
    """Whether `.venv` has a Python that is new enough and a pip that runs."""
    code = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    return os.access(PYTHON, os.X_OK) and quiet_run(PYTHON, "-I", "-c", code).returncode == 0


def install(dev: bool) -> None:
    """Bring `.venv` up to date; the stamp is written last, so that a broken-off run is repeated.

    Raises:
        SetupError: with the line that the user is to see.
    """
    for place in (ROOT, VENV):
        if place.exists() and not os.access(place, os.W_OK):
            raise OSError(errno.EACCES, f"{place} is not writable")
    if not usable():
        ensure_venv_module()
        shutil.rmtree(VENV, ignore_errors=True)
        # By its full name: once a newer Python has replaced this one, `.venv/bin/python` leads nowhere and is
        # made anew, instead of looking for its packages in another version's place.
        done = quiet_run(os.path.realpath(sys.executable), "-I", "-m", "venv", VENV)
        if done.returncode != 0:
            raise SetupError(f"cannot make {VENV}: {last_line(done.stdout)}")
    pip = (
        PYTHON,
        "-I",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "--retries",
        "2",
        "install",
        "-q",
    )
    # Most modules of what the tests need are never loaded; the others are compiled by whoever comes first.
    unread = ["--no-compile"] if dev else []
    done = quiet_run(*pip, *unread, "--only-binary", ":all:", *requirements(dev))
    if done.returncode != 0:
        raise SetupError(f"cannot install the Python packages: {reason(done.stdout, INDEX)}")
    (packages,) = VENV.glob("lib/python3*/site-packages")
    source = os.path.relpath(ROOT / "src", packages)
    (packages / "sampan.pth").write_text(source + "\n")
    for kind in (False, dev):
        STAMPS[kind].write_bytes((ROOT / "pyproject.toml").read_bytes())


def up_to_date(dev: bool) -> bool:
    """Whether the stamp holds the present pyproject.toml (a checkout changes times, not always content)."""
    stamp = STAMPS[dev]
    try:
        return usable() and stamp.read_bytes() == (ROOT / "pyproject.toml").read_bytes()
    except FileNotFoundError:
        return False


def ensure(dev: bool) -> None:
    """Make, mend or leave the environment, one process at a time.

    Raises:
        SetupError: with the line that the user is to see.
    """
    try:
        lock = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if up_to_date(dev):
                os.utime(STAMPS[dev])
                return
            print("Setting up Sampan (once) …", file=sys.stderr, flush=True)
            install(dev)
        finally:
            os.close(lock)
    except OSError as error:
        hint = ""
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            hint = "; the checkout must be writable once: use sudo, or a copy of your own"
        raise SetupError(f"cannot set up {VENV}: {error.strerror}{hint}") from error


def main() -> int:
    """Make the environment; 0, or 1 with one line on stderr."""
    try:
        ensure(dev="--dev" in sys.argv[1:])
    except SetupError as error:
        print(f"sampan: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
