"""docker-py and Debian's own docker client, as witnesses beside the newest one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound

from support.cli import Cli
from support.engine import Engine

Names = Callable[[], str]


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=engine.host)
    yield made
    made.close()


def test_docker_py_runs(client: docker.DockerClient, busybox: str) -> None:
    assert client.ping()
    assert client.containers.run(busybox, ["echo", "ahoy"], remove=True) == b"ahoy\n"
    with pytest.raises(ContainerError) as raised:
        client.containers.run(busybox, ["sh", "-c", "exit 3"], remove=True)
    assert raised.value.exit_status == 3
    with pytest.raises(ImageNotFound):
        client.images.get("no-such-image-here")


def test_docker_py_lifecycle(client: docker.DockerClient, busybox: str, name: Names) -> None:
    container = client.containers.run(busybox, ["sleep", "60"], detach=True, name=name(), mem_limit="64m")
    container.reload()
    assert container.status == "running"
    assert container.exec_run(["sh", "-c", "echo a; echo b >&2; exit 4"], demux=True) == (4, (b"a\n", b"b\n"))
    container.stop(timeout=0)
    assert container.wait()["StatusCode"] == 137
    container.remove()
    with pytest.raises(APIError):
        container.start()


def test_docker_py_leaves_the_terminal_to_the_creation(
    client: docker.DockerClient, busybox: str, name: Names
) -> None:
    """The terminal is named when an exec is made, not again at its start: the output comes in frames."""
    container = client.containers.run(busybox, ["sleep", "60"], detach=True, name=name())
    made = client.api.exec_create(container.id, ["sh", "-c", "tty; echo b >&2"], tty=True)
    assert client.api.exec_start(made, demux=True) == (b"/dev/pts/0\r\nb\r\n", None)


def test_docker_py_commits_what_is_about_to_end(
    client: docker.DockerClient, busybox: str, name: Names
) -> None:
    for _ in range(10):
        container = client.containers.run(busybox, ["touch", "/test"], detach=True, name=name())
        client.images.remove(container.commit().id)
        container.remove(force=True)


def test_docker_py_saves_and_loads(client: docker.DockerClient, busybox: str) -> None:
    image = client.images.get(busybox)
    (loaded,) = client.images.load(b"".join(image.save(named=True)))
    assert loaded.id == image.id


def debians_own(engine: Engine) -> Cli:
    """The distribution's docker client, where another one comes first in the path."""
    if not Path("/usr/bin/docker").exists() or shutil.which("docker") == "/usr/bin/docker":
        pytest.skip("needs a second docker client in /usr/bin (Debian: docker.io)")
    return Cli("docker", ["/usr/bin/docker"], engine.host, engine.docker.environment)


def test_an_older_docker_client(engine: Engine, busybox: str, name: Names) -> None:
    cli, one = debians_own(engine), name()
    cli("run", "-d", "--name", one, "--memory", "64m", busybox, "sleep", "60")
    assert cli("exec", one, "echo", "ahoy").out == "ahoy\n"
    assert one in cli("ps").out
    assert cli("run", "--rm", "-i", busybox, "cat", stdin=b"in").out == "in"
    with cli.terminal("run", "--rm", "-it", busybox, "sh") as terminal:
        terminal.send(b"echo $((6*7)); exit 2\r")
        terminal.expect(b"42\r\n")
        assert terminal.wait() == 2
    cli("stop", "-t", "0", one)
    cli("rm", one)
