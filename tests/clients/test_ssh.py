"""`-H ssh://`: docker and sampan by way of ssh, with a stand-in for it and with the real one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.building.ending import Ending
from sampan.building.git import clone, repository
from sampan.errors import InvalidParameter
from support.cli import Cli
from support.engine import SOURCE, Daemon
from support.machine import eventually
from support.repositories import commit

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import machine as emulated
import sshd

Names = Callable[[], str]

FAKE_SSH = """#!/bin/sh
echo "$*" >>"{log}"
while [ "$1" != -- ]; do shift; done
shift
[ "$1" = unreachable ] && echo "ssh: connect to host unreachable: No route to host" >&2 && exit 255
shift
PATH="{remote}:$PATH" exec sh -c "$*"
"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def far_side(directory: Path, daemon: Daemon, *names: str) -> Path:
    """Programs as another machine has them: ours, under these names, whose daemon is the one under test."""
    program = f'export PYTHONPATH="{SOURCE}"\nexec {sys.executable} -m sampan.cli "$@"\n'
    for name in names:
        script(directory / name, f'#!/bin/sh\nexport SAMPAN_HOST="{daemon.host}"\n{program}')
    return directory


def near_side(cli: Cli, ssh: Path, host: str) -> Cli:
    environment = {**cli.environment, "PATH": f"{ssh.parent}:{cli.environment['PATH']}"}
    return Cli(cli.name, cli.program, host, environment)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def stand_in(tmp_path: Path, daemon: Daemon, log: Path) -> Path:
    """Something called ssh that runs the command here."""
    remote = far_side(tmp_path / "remote", daemon, "docker")
    path = tmp_path / "near" / "ssh"
    script(path, FAKE_SSH.format(log=log, remote=remote))
    return path


@pytest.fixture
def far(cli: Cli, stand_in: Path) -> Cli:
    """The client under test, with an ssh:// host."""
    return near_side(cli, stand_in, "ssh://me@far.example:2222")


def conversations(far: Cli, daemon: Daemon, one: str) -> None:
    """What clients do with a connection: ask, stream, hijack, upload, half-close."""
    assert (
        far("run", "--name", one, "-i", daemon.busybox, "cat", stdin=b"x" * 3_000_000).raw == b"x" * 3_000_000
    )
    assert (
        far("run", "--rm", daemon.busybox, "sh", "-c", "echo out; echo err >&2; exit 9", code=9).err
        == "err\n"
    )
    assert one in far("ps", "-a", "--format", "{{.Names}}").lines
    with far.terminal(
        "run", "--rm", "-it", daemon.busybox, "sh", "-c", "read x; echo got $x; exit 4"
    ) as terminal:
        terminal.send(b"this\n")
        terminal.expect(b"got this")
        assert terminal.wait() == 4
    archive = daemon.docker("save", daemon.busybox).raw
    assert "Loaded image" in far("load", stdin=archive).out
    assert far("save", daemon.busybox).raw[257:262] == archive[257:262] == b"ustar"


def test_a_stand_in(far: Cli, daemon: Daemon, name: Names, log: Path) -> None:
    conversations(far, daemon, name())
    call = log.read_text().splitlines()[0]
    assert "-l me -p 2222" in call and "-T" in call and "far.example" in call
    assert "ConnectTimeout=30" in call and "docker system dial-stdio" in call


def test_by_the_environment(cli: Cli, daemon: Daemon, stand_in: Path, log: Path) -> None:
    moved = near_side(cli, stand_in, "")
    done = subprocess.run(
        [*moved.program, "version", "--format", "{{.Server.Version}}"], capture_output=True, text=True,
        env={**moved.environment, "DOCKER_HOST": "ssh://far.example"}, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, daemon.api.get("/version")["Version"])
    assert " -l " not in log.read_text() and " -p " not in log.read_text()


def test_a_socket_by_its_path(cli: Cli, daemon: Daemon, stand_in: Path, log: Path) -> None:
    moved = near_side(cli, stand_in, f"ssh://far.example{daemon.socket}")
    assert (
        moved("version", "--format", "{{.Server.Version}}").out.strip()
        == daemon.api.get("/version")["Version"]
    )
    assert f"unix://{daemon.socket}" in log.read_text()
    nowhere = near_side(cli, stand_in, "ssh://far.example/no/such.sock")
    assert nowhere("ps", code=1).err


def test_ours_prefers_ours(daemon: Daemon, tmp_path: Path, log: Path) -> None:
    remote = far_side(tmp_path / "both", daemon, "sampan")
    script(remote / "docker", "#!/bin/sh\necho this is another engine >&2\nexit 1\n")
    ssh = tmp_path / "ours" / "ssh"
    script(ssh, FAKE_SSH.format(log=log, remote=remote))
    assert near_side(daemon.sampan, ssh, "ssh://far.example")("ps", "-q").code == 0


def test_what_can_go_wrong(cli: Cli, daemon: Daemon, stand_in: Path) -> None:
    done = near_side(cli, stand_in, "ssh://unreachable")("ps", code=1)
    # docker's client says sometimes only that its way has broken, when ssh ends before it has asked.
    assert "No route to host" in done.err or (cli.name == "docker" and "broken pipe" in done.err)
    for host, said in (("ssh://me:secret@far.example", "password"), ("ssh://far.example?a=b", "quer")):
        done = near_side(cli, stand_in, host)("ps", code=1)
        assert said in done.err or "may follow" in done.err
    nobody = dict(daemon.sampan.environment, PATH="/nowhere")
    done = Cli("sampan", daemon.sampan.program, "ssh://far.example", nobody)("ps", code=1)
    assert "install openssh-client" in done.err


def test_a_client_that_is_killed_leaves_nobody_behind(far: Cli, daemon: Daemon, log: Path) -> None:
    with far.start("events") as listening:
        eventually(lambda: daemon.api.get("/info")["NEventsListener"] == 1, what="it listens")
        listening.kill()
    eventually(lambda: daemon.api.get("/info")["NEventsListener"] == 0, what="the connection has ended")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, daemon: Daemon) -> Iterator[tuple[Path, str]]:
    """A real sshd on loopback, with its own users, and an ssh that knows it."""
    try:
        program, needs = sshd.program(download=False)
    except emulated.NoMachine as error:
        pytest.skip(str(error))
    place = tmp_path_factory.mktemp("sshd")
    place.chmod(0o755)
    for key in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / key)], check=True)
    remote = far_side(place / "remote", daemon, "docker", "sampan")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (place / "passwd").write_text(
        "root:x:0:0::/root:/bin/sh\nsshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
    )
    (place / "shadow").write_text("root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n")
    (place / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nAuthorizedKeysFile {place}/user.pub\n"
        f"StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nSetEnv PATH={remote}:/usr/bin:/bin\n"
    )
    (place / "ssh_config").write_text(
        f"Host *\nIdentityFile {place}/user\nStrictHostKeyChecking no\nUserKnownHostsFile {place}/known\n"
        "LogLevel ERROR\n"
    )
    script(place / "near" / "ssh", f'#!/bin/sh\nexec /usr/bin/ssh -F {place}/ssh_config "$@"\n')
    inside = (
        "mount --make-rprivate / && mount -t tmpfs none /run && mkdir -m 755 /run/sshd && "
        f"mount --bind {place}/passwd /etc/passwd && mount --bind {place}/shadow /etc/shadow && "
        f"exec {program} -D -e -f {place}/sshd_config"
    )
    with (place / "log").open("wb") as log, subprocess.Popen(
        ["unshare", "-m", "sh", "-c", inside],
        env={**os.environ, **needs}, stdin=subprocess.DEVNULL, stderr=log,
    ) as server:  # fmt: skip
        try:
            eventually(lambda: "listening" in (place / "log").read_text(), what="sshd listens")
            yield place / "near" / "ssh", f"ssh://root@127.0.0.1:{port}"
        finally:
            server.terminate()


def test_the_real_one(cli: Cli, real: tuple[Path, str], daemon: Daemon, name: Names) -> None:
    conversations(near_side(cli, *real), daemon, name())


def test_no_right_at_the_real_one(cli: Cli, real: tuple[Path, str], tmp_path: Path) -> None:
    ssh, host = real
    script(tmp_path / "near" / "ssh", f'#!/bin/sh\nexec {ssh} -o IdentityFile=none -o BatchMode=yes "$@"\n')
    config = (ssh.parent.parent / "ssh_config").read_text().replace("/user\n", "/host\n")
    (tmp_path / "config").write_text(config)
    script(tmp_path / "near" / "ssh", f'#!/bin/sh\nexec /usr/bin/ssh -F {tmp_path}/config "$@"\n')
    done = near_side(cli, tmp_path / "near" / "ssh", host)("ps", code=1)
    assert "Permission denied" in done.err


@pytest.mark.skipif(shutil.which("git") is None, reason="needs the program git")
def test_a_repository_by_ssh(real: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a build, with the key of an agent, and without any."""
    ssh, host = real
    commit(tmp_path / "main", f="")
    place = ssh.parent.parent
    config = (place / "ssh_config").read_text().replace(f"{place}/user\n", "none\n")
    (tmp_path / "config").write_text(config)
    script(tmp_path / "near" / "ssh", f'#!/bin/sh\nexec /usr/bin/ssh -F {tmp_path}/config "$@"\n')
    monkeypatch.setenv("PATH", f"{tmp_path}/near:{os.environ['PATH']}")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    wanted = repository(f"{host}{tmp_path}/main")
    with pytest.raises(InvalidParameter, match=r"unable to prepare context: git: .*: Permission denied \("):
        clone(wanted, tmp_path / "refused", False, Ending())
    agent = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL) as process:
        try:
            eventually(agent.exists, what="the agent listens")
            monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
            subprocess.run(["ssh-add", "-q", place / "user"], check=True)
            assert os.listdir(clone(wanted, tmp_path / "cloned", False, Ending())) == ["f"]
        finally:
            process.terminate()
