"""What tutorials of Docker say about images, typed as they say it, pipes and redirections included."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cli import Cli
from support.engine import Engine
from support.images import import_busybox

Shell = Callable[..., str]


@pytest.fixture
def shell(cli: Cli, tmp_path: Path) -> Shell:
    """Runs a line of shell in which `docker` is the command line under test."""
    program = shlex.join(cli.argv())

    def run(line: str, code: int = 0) -> str:
        script = f'docker() {{ command {program} "$@"; }}\nset -o pipefail\n{line}'
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env=cli.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return run


@pytest.fixture
def ubuntu(engine: Engine) -> Iterator[str]:
    """An image called as in the book."""
    import_busybox(engine.api)
    engine.docker("tag", "busybox", "ubuntu:14.04")
    yield "ubuntu:14.04"
    for name in ("ubuntu:14.04", "test/ubuntu:v1.0", "training/sinatra"):
        engine.api("DELETE", f"/images/{name}?force=1")


def test_images_to_files_and_back(shell: Shell, engine: Engine, ubuntu: str) -> None:
    image_id = engine.api.get(f"/images/{ubuntu}/json")["Id"]
    shell("docker save -o ubuntu_14.04.tar ubuntu:14.04")
    shell("docker save ubuntu:14.04 > again.tar && cmp ubuntu_14.04.tar again.tar")
    shell("docker save ubuntu:14.04 | gzip > ubuntu_14.04.tar.gz")
    for line in (
        "docker load --input ubuntu_14.04.tar",
        "docker load -i ubuntu_14.04.tar.gz",
        "docker load < ubuntu_14.04.tar",
        "docker load < ubuntu_14.04.tar.gz",
    ):
        shell("docker image rm ubuntu:14.04")
        assert shell(line) == "Loaded image: ubuntu:14.04\n"
        assert engine.api.get(f"/images/{ubuntu}/json")["Id"] == image_id
    listed = shell("docker image ls ubuntu").splitlines()
    assert listed[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert listed[1].split()[:3] == ["ubuntu", "14.04", image_id[7:19]]


def test_removing_images(shell: Shell, engine: Engine, ubuntu: str) -> None:
    shell("docker create --name sinatra ubuntu:14.04 sh && docker commit sinatra training/sinatra")
    shell("docker start sinatra && docker wait sinatra && docker commit sinatra training/sinatra")
    assert "No such container: ubuntu:14.04" in shell("docker rm ubuntu:14.04", 1)  # rm is for containers
    image_id = engine.api.get("/images/training/sinatra/json")["Id"]
    lines = shell("docker rmi training/sinatra").splitlines()
    assert lines[:2] == ["Untagged: training/sinatra:latest", f"Deleted: {image_id}"]
    assert engine.api("GET", "/images/training/sinatra/json").status == 404
    shell("docker rm sinatra")


def test_an_image_goes_after_its_containers(shell: Shell, engine: Engine, ubuntu: str) -> None:
    shell("docker create --name user ubuntu:14.04 sh; docker commit -m x user training/sinatra")
    shell("docker create --name guest training/sinatra")
    assert "conflict: unable to remove repository reference" in shell("docker rmi training/sinatra", 1)
    shell("docker rm guest user && docker rmi training/sinatra")


def test_containers_to_files_and_back(shell: Shell, engine: Engine, ubuntu: str) -> None:
    """A snapshot forgets history and config; an image's archive keeps both."""
    shell("docker run --name test -e KEPT=1 ubuntu:14.04 sh -c 'echo data > /data'")
    container_id = engine.api.inspect("test")["Id"]
    shell(f"docker export {container_id[:12]} > ubuntu.tar")
    said = shell("cat ubuntu.tar | docker import - test/ubuntu:v1.0")
    assert said.startswith("sha256:")
    shown = engine.api.get("/images/test/ubuntu:v1.0/json")
    assert said.strip() == shown["Id"]
    assert not shown["Config"]["Env"]
    assert not shown["Config"]["Cmd"]
    assert len(shell("docker history -q test/ubuntu:v1.0").splitlines()) == 1
    assert shell("docker run --rm test/ubuntu:v1.0 cat /data") == "data\n"
    assert "o command specified" in shell("docker run --rm test/ubuntu:v1.0", 125)
    shell("docker commit test training/sinatra && docker save training/sinatra > s.tar")
    shell("docker rmi training/sinatra && docker load < s.tar")
    assert engine.api.get("/images/training/sinatra/json")["Config"]["Env"] == ["KEPT=1"]
    assert len(shell("docker history -q training/sinatra").splitlines()) == 2
    shell("docker rm test")


def test_disk_usage(shell: Shell, ubuntu: str) -> None:
    lines = shell("docker system df").splitlines()
    kinds = [line.split("  ")[0] for line in lines[1:]]
    assert kinds == ["Images", "Containers", "Local Volumes", "Build Cache"]
