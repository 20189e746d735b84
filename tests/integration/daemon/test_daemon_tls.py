"""TCP with TLS: the docker client and ours through it, what they lose (nothing), and whom it turns away."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.certificates import Authority
from support.cli import Cli, clean_environment
from support.engine import SOURCE, Daemon
from support.machine import eventually
from support.needs import program

pytestmark = program("openssl")
Names = Callable[[], str]


@dataclass(frozen=True)
class Secured:
    """A daemon with a TLS port, and what is needed to speak to it."""

    daemon: Daemon
    url: str
    ours: Path
    strangers: Path
    server: Path

    def client(self, name: str, *flags: str, home: Path | None = None, **environment: str) -> Cli:
        """The docker client or ours with these flags before -H, in an environment of its own."""
        given = {**clean_environment(str(home or self.daemon.base / "nobody")), **environment}
        if name == "docker":
            return Cli(name, ["docker", *flags], self.url, given)
        words = [sys.executable, "-m", "sampan.cli", *flags]
        return Cli(name, words, self.url, {**given, "PYTHONPATH": str(SOURCE)})


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def secured(
    make_daemon: Callable[..., Daemon], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, other = Authority(folder / "authority"), Authority(folder / "other")
    server = authority.issue(
        "server", "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n"
    )
    ours = authority.issue("client", "extendedKeyUsage=clientAuth\n")
    strangers = other.issue("stranger", "extendedKeyUsage=clientAuth\n")
    (strangers / "ca.pem").write_bytes(authority.certificate.read_bytes())
    url = f"tcp://127.0.0.1:{free_port()}"
    flags = ("--tlsverify", *files(server), "-H", url)
    daemon = make_daemon(*flags).start()
    assert daemon.busybox
    yield Secured(daemon, url, ours, strangers, server)
    daemon.end()


def files(folder: Path) -> list[str]:
    return [
        *("--tlscacert", str(folder / "ca.pem")),
        *("--tlscert", str(folder / "cert.pem"), "--tlskey", str(folder / "key.pem")),
    ]


@pytest.fixture(params=["docker", "sampan"])
def client(request: pytest.FixtureRequest, secured: Secured) -> Cli:
    return secured.client(request.param, "--tlsverify", *files(secured.ours))


def test_run_attach_exec_and_logs(client: Cli, name: Names) -> None:
    one = name()
    assert (
        client("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3", code=3).err == "err\n"
    )
    script = "while read line; do echo got $line; done; echo over"
    client("create", "-i", "--name", one, "busybox", "sh", "-c", script)
    assert client("start", "-ai", one, stdin=b"a\nb\n").out == "got a\ngot b\nover\n"
    client("start", one)
    assert client("exec", "-i", one, "wc", "-c", stdin=b"1234").out.strip() == "4"
    with client.start("logs", "-f", "--tail", "1", one) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == b"over\n"
        client("rm", "-f", one)
        assert following.wait(10) == 0


def test_the_end_of_input_does_not_cost_the_end_of_output(client: Cli) -> None:
    data = os.urandom(6_000_000)
    for _ in range(3):
        assert client("run", "--rm", "-i", "busybox", "cat", stdin=data).raw == data
    late = client("run", "--rm", "-i", "busybox", "sh", "-c", "cat; sleep 0.5; echo later", stdin=b"first\n")
    assert late.out == "first\nlater\n"


def test_output_is_whole_though_nobody_reads_the_input(client: Cli) -> None:
    """The container ends while the client is still sending: nothing of its output may be cut off."""
    for _ in range(3):
        with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
            command = client.argv("run", "--rm", "-i", "busybox", "head", "-c", "5000000", "/dev/zero")
            done = subprocess.run(
                command,
                stdin=endless.stdout,
                capture_output=True,
                env=client.environment,
                timeout=60,
                check=False,
            )
            endless.kill()
        assert (done.returncode, len(done.stdout), done.stderr) == (0, 5_000_000, b"")


def test_a_terminal(client: Cli) -> None:
    with client.terminal("run", "--rm", "-it", "busybox", "sh") as terminal:
        terminal.send(b"echo $((6*7)); exit 2\r")
        terminal.expect(b"42\r\n")
        assert terminal.wait() == 2


@pytest.mark.parametrize("name", ["docker", "sampan"])
def test_the_environment_says_it_all(secured: Secured, name: str) -> None:
    where = {"DOCKER_HOST": secured.url, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(secured.ours)}
    cli = secured.client(name, **where)
    done = subprocess.run(
        [*cli.program, "ps"], capture_output=True, text=True, env=cli.environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("CONTAINER ID")


@pytest.mark.parametrize("name", ["docker", "sampan"])
def test_certificates_in_the_home_directory(secured: Secured, name: str, tmp_path: Path) -> None:
    for file in ("ca.pem", "cert.pem", "key.pem"):
        folder = tmp_path / ".docker" if name == "sampan" else tmp_path
        folder.mkdir(exist_ok=True)
        (folder / file).write_bytes((secured.ours / file).read_bytes())
    cli = secured.client(name, "--tlsverify", home=tmp_path)
    if name == "sampan":
        del cli.environment["DOCKER_CONFIG"]
    assert cli("ps").out.startswith("CONTAINER ID")


def test_a_docker_context(secured: Secured, tmp_path: Path) -> None:
    environment = clean_environment(str(tmp_path))
    parts = ",".join(f"{key}={secured.ours / key}.pem" for key in ("ca", "cert", "key"))

    def docker(*words: str) -> str:
        done = subprocess.run(
            ["docker", *words], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    docker("context", "create", "boat", "--docker", f"host={secured.url},{parts}")
    docker("context", "use", "boat")
    assert docker("run", "--rm", "busybox", "echo", "ahoy") == "ahoy\n"


REFUSED = {
    "a stranger's certificate": (
        ["--tlsverify", "STRANGER"],
        "remote error: tls: unknown certificate authority",
        "it does not know the authority that signed our certificate",
        "its certificate cannot be verified",
    ),
    "no certificate": (
        ["--tlsverify", "CA"],
        "remote error: tls: certificate required",
        "it wants a client certificate: give --tlscert and --tlskey",
        "it shows no certificate",
    ),
    "no verification and no certificate": (
        ["--tls", "CA"],
        "remote error: tls: certificate required",
        "it wants a client certificate",
        "it shows no certificate",
    ),
    "plain HTTP": (
        [],
        "Client sent an HTTP request to an HTTPS server.",
        "Client sent an HTTP request to an HTTPS server.",
        "it speaks HTTP without TLS",
    ),
}


@pytest.mark.parametrize("name", ["docker", "sampan"])
@pytest.mark.parametrize("case", REFUSED)
def test_whom_it_turns_away(secured: Secured, name: str, case: str) -> None:
    words, dockers, ours, logged = REFUSED[case]
    flags = []
    for word in words:
        if word == "STRANGER":
            flags += files(secured.strangers)
        elif word == "CA":
            flags += files(secured.ours)[:2]
        else:
            flags.append(word)
    before = len(secured.daemon.log_text())
    done = secured.client(name, *flags)("ps", code=1)
    assert (dockers if name == "docker" else ours) in done.err
    assert done.err.count("\n") == 1
    eventually(lambda: logged in secured.daemon.log_text()[before:], what=f"the daemon logs {logged!r}")


def test_a_daemon_that_cannot_be_verified(secured: Secured) -> None:
    with_wrong_ca = ["--tlsverify", "--tlscacert", str(secured.strangers.parent / "ca.pem")]
    done = secured.client("sampan", *with_wrong_ca)("ps", code=1)
    assert "its certificate cannot be verified" in done.err and "--tlscacert" in done.err
    plain = secured.client("sampan", "--tlsverify", *files(secured.ours))
    plain.host = f"tcp://127.0.0.1:{free_port()}"
    assert "Is the sampan daemon running?" in plain("ps", code=1).err


def test_files_that_are_not_there_are_named(secured: Secured, tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing.pem")
    for flags in (["--tlscacert", missing], [*files(secured.ours)[:4], "--tlskey", missing]):
        done = secured.client("sampan", "--tlsverify", *flags)("ps", code=1)
        assert done.err == f"open {missing}: no such file or directory\n"
    done = secured.client("sampan", "--tlsverify", "--tlscert", str(secured.ours / "cert.pem"))("ps", code=1)
    assert "needs both --tlscert and --tlskey" in done.err


def test_a_server_without_tls_is_named(secured: Secured, make_daemon: Callable[..., Daemon]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:
        process = subprocess.Popen(
            [
                *secured.client("sampan", "--tlsverify", *files(secured.ours)).program,
                *("-H", f"tcp://127.0.0.1:{plain.getsockname()[1]}", "ps"),
            ],
            stderr=subprocess.PIPE,
            text=True,
            env=secured.client("sampan").environment,
        )
        connection, _ = plain.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "it does not speak TLS" in said
