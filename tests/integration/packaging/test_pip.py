"""Sampan as pip installs it: the wheel in a clean environment, and the script that makes one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan import __version__
from support.engine import TOKEN, Daemon
from support.machine import eventually
from support.packages import PACKAGING, ROOT, build_cache, python_wheels

COMMANDS = ("sampan", "sampand", "sampan-runtime")
PIP = (sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "-q")
SCRIPT = PACKAGING / "install.sh"


def run(*command: str | Path, code: int = 0, **environment: str) -> str:
    """Run to the end; all that it said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
    done = subprocess.run(
        [str(word) for word in command],
        env={**kept, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def links() -> str:
    """Where pip finds what it needs, instead of an index."""
    return f"{build_cache()} {python_wheels()}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, links: str) -> Path:
    """Built from the checkout by pip, as anybody would."""
    place = tmp_path_factory.mktemp("wheel")
    run(*PIP, "wheel", "--no-deps", "-w", place, ROOT, PIP_NO_INDEX="1", PIP_FIND_LINKS=links)
    (made,) = place.iterdir()
    assert made.name == f"sampan-{__version__}-py3-none-any.whl"
    return made


@pytest.fixture
def served(make_daemon: Callable[..., Daemon]) -> Iterator[Callable[[Path], Daemon]]:
    """Starts the daemon of an installation instead of the checkout's."""
    made = []

    def serve(program: Path) -> Daemon:
        daemon = make_daemon()
        made.append(daemon)
        with daemon.log.open("ab") as log:
            daemon.process = subprocess.Popen(
                [program, *daemon.arguments],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env={"PATH": os.environ["PATH"], "SAMPAN_TEST": TOKEN},
                start_new_session=True,
            )
        eventually(daemon.answers, timeout=60)
        return daemon

    yield serve
    for daemon in made:
        daemon.end()


@pytest.mark.daemon
def test_the_wheel_has_all_that_is_needed(
    wheel: Path, links: str, tmp_path: Path, served: Callable[[Path], Daemon]
) -> None:
    venv = tmp_path / "venv"
    run(sys.executable, "-I", "-m", "venv", "--without-pip", venv)
    run(*PIP, "--python", venv, "install", "--no-compile", wheel, PIP_NO_INDEX="1", PIP_FIND_LINKS=links)
    for name in COMMANDS:
        assert f"version {__version__}" in run(venv / "bin" / name, "--version")
    assert run(venv / "bin/sampand", "--validate") == "configuration OK\n"
    daemon = served(venv / "bin/sampand")
    assert "Sampan" in run(venv / "bin/sampan", "-H", daemon.host, "run", "--rm", "hello-world")
    find = "import sampan, pathlib; print(*pathlib.Path(sampan.__file__).parent.rglob('*.html'))"
    assert "front.html" in run(venv / "bin/python", "-I", "-c", find)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--frobnicate", "unknown argument: --frobnicate"),
        ("--with", "--with needs a value"),
        ("--with magic", "unknown way to install: magic"),
        ("--with pip --systemd", "--systemd goes with --with venv alone"),
        ("--uninstall --systemd", "--uninstall takes no other option"),
    ],
)
def test_the_script_refuses_what_it_does_not_know(words: str, said: str) -> None:
    assert said in run("sh", SCRIPT, *words.split(), code=1)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Callable[..., str]:
    """Runs shell scripts where /opt and /usr/local are other directories, which stay between them."""
    for name in ("opt", "bin", "share"):
        (tmp_path / name).mkdir()
    mounts = " && ".join(
        f"mount --bind {tmp_path}/{name} {place}"
        for name, place in (("opt", "/opt"), ("bin", "/usr/local/bin"), ("share", "/usr/local/share"))
    )

    def shell(script: str, code: int = 0, **environment: str) -> str:
        path = f"{os.path.dirname(os.path.realpath(sys.executable))}:/usr/local/bin:/usr/bin:/bin:/usr/sbin"
        command = f"set -e; {mounts}; {script}"
        return run("unshare", "-m", "sh", "-c", command, code=code, **{"PATH": path, **environment})

    return shell


@pytest.mark.root
def test_the_script_installs_upgrades_and_removes(
    elsewhere: Callable[..., str], wheel: Path, links: str, tmp_path: Path
) -> None:
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": links, "PIP_NO_COMPILE": "1"}
    install = f"sh {SCRIPT} --from {wheel}"

    plan = elsewhere(f"{install} --systemd --dry-run", **index)
    assert "venv --clear /opt/sampan" in plan and "systemctl enable" in plan
    assert not any((tmp_path / "opt").iterdir()) and not any((tmp_path / "bin").iterdir())

    elsewhere(f"{install} && {install}", **index)
    shown = elsewhere(f"for name in {' '.join(COMMANDS)}; do $name --version; done")
    assert shown.count(f"version {__version__}") == 3
    helps = ["man/man1/sampan-run.1", "bash-completion/completions/sampan", "zsh/site-functions/_sampan"]
    assert all((tmp_path / "share" / name).is_file() for name in helps)

    assert "no environment" in elsewhere(f"rm /opt/sampan/pyvenv.cfg; sh {SCRIPT} --uninstall", code=1)
    elsewhere(f"touch /opt/sampan/pyvenv.cfg; sh {SCRIPT} --uninstall")
    assert not [path for path in (tmp_path / "share").rglob("*") if path.is_file()]
    assert not any((tmp_path / "opt").iterdir()) and not any((tmp_path / "bin").iterdir())


@pytest.mark.root
def test_the_script_leaves_nothing_half_made_and_what_is_not_its_own(
    elsewhere: Callable[..., str], tmp_path: Path
) -> None:
    nothing = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    assert "pip could not install" in elsewhere(f"sh {SCRIPT} --from {ROOT}", code=1, **nothing)
    assert not any((tmp_path / "opt").iterdir()) and not any((tmp_path / "bin").iterdir())
    (tmp_path / "bin/sampan").write_text("somebody else's")
    assert "/usr/local/bin/sampan is there" in elsewhere(f"sh {SCRIPT}", code=1, **nothing)
    assert "nothing is removed" in elsewhere(f"sh {SCRIPT} --uninstall", code=1)
    assert (tmp_path / "bin/sampan").read_text() == "somebody else's"


def test_the_script_calls_pipx(tmp_path: Path) -> None:
    """With its own words; without it, it says how to get it. What pipx then does was tried by hand."""
    path = f"{os.path.dirname(os.path.realpath(sys.executable))}:/bin:{tmp_path}"
    for name in ("dirname", "uname", "id", "dpkg-query"):
        (tmp_path / name).symlink_to(shutil.which(name) or "/bin/false")
    way = ("/bin/sh", SCRIPT, "--with", "pipx")
    if shutil.which("pipx", path=path) is None:
        assert "apt-get install pipx" in run(*way, PATH=path, code=1)
    (tmp_path / "pipx").write_text('#!/bin/sh\necho pipx "$@"\n')
    (tmp_path / "pipx").chmod(0o755)
    assert f"pipx install --force {ROOT}\n" in run(*way, PATH=f"{tmp_path}:{path}")


def test_the_script_does_not_write_to_the_distributions_python(tmp_path: Path) -> None:
    """PEP 668: a file beside the standard library says so."""
    fake = tmp_path / "python3"
    tell = "import sysconfig; sysconfig.get_path = lambda name: sys.argv[-1]"
    fake.write_text(
        f"#!/bin/sh\n"
        f'case "$*" in *EXTERNALLY*) set -- -I -c "import sys; {tell}\n$3" {tmp_path} ;; esac\n'
        f'exec {os.path.realpath(sys.executable)} "$@"\n'
    )
    fake.chmod(0o755)
    way = ("sh", SCRIPT, "--dry-run", "--with", "pip")
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert "-m pip" in run(*way, PATH=path)
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    assert "PEP 668" in run(*way, PATH=path, code=1)
