# ruff: noqa: E501 (the script's lines are whole)
"""A link named `docker` to our program: a script does the same with it as with docker's own client."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support.cli import docker_release
from support.engine import Engine

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = r"""
set -eu
docker --version | grep -Eq '^Docker version [0-9]+\.[0-9]+\.[0-9]+, build '
docker info --format '{{.OSType}} {{.Driver}}'
docker version --format '{{.Server.APIVersion}}'
id=$(docker run -d --name alias-web -l role=web -e A=b -v alias-data:/data -p 127.0.0.1:18080:80 busybox sleep 600)
test "$(docker ps -q --no-trunc --filter name=alias-web)" = "$id"
test "$(docker inspect -f '{{.State.Running}}' alias-web)" = true
docker inspect -f '{{range $p, $b := .NetworkSettings.Ports}}{{$p}} {{(index $b 0).HostPort}}{{end}}' alias-web
docker inspect -f '{{json .Config.Labels}} {{.HostConfig.RestartPolicy.Name}} {{.Mounts}}' alias-web | sed 's/\/[^ ]*_data//'
docker exec alias-web sh -c 'echo $A > /data/file'
docker cp alias-web:/data/file copied && cat copied
echo in | docker run --rm -i busybox sh -c 'cat; echo err >&2; exit 7' 2>err || echo "exit $?"
cat err
docker logs alias-web
docker port alias-web
docker ps --format '{{.Names}} {{.Image}} {{.Label "role"}}' --filter label=role=web
docker commit alias-web alias-image >/dev/null
docker images --format '{{.Repository}}:{{.Tag}}' alias-image
docker run --rm alias-image echo from the image
docker stop -t 0 alias-web
docker wait alias-web
docker rm -v alias-web
docker rmi -f alias-image >/dev/null
docker volume rm alias-data
docker inspect alias-web 2>&1 || echo "exit $?"
docker run busybox nosuch >/dev/null 2>&1 || echo "exit $?"
docker ps -aq --filter status=created | xargs -r docker rm >/dev/null
docker frobnicate >/dev/null 2>&1 || echo "exit $?"
docker run --nosuch busybox 2>&1 | tail -3
docker rm 2>&1 || echo "exit $?"
"""


@pytest.mark.skipif(docker_release() < (28,), reason="compared with docker's client from release 28 on")
def test_a_script_cannot_tell(engine: Engine, tmp_path: Path) -> None:
    assert engine.busybox
    said = {}
    for name in ("theirs", "ours"):
        folder = tmp_path / name
        folder.mkdir()
        path = os.environ["PATH"]
        if name == "ours":
            made = subprocess.run(
                [ROOT / "sampan", "install-docker-alias", "--dir", folder / "bin"],
                capture_output=True,
                text=True,
                check=True,
            )
            assert made.stdout == f"{folder}/bin/docker -> {ROOT}/sampan\n"
            path = f"{folder}/bin:{path}"
        environment = {**engine.sampan.environment, "PATH": path, "DOCKER_HOST": engine.host}
        done = subprocess.run(
            ["bash", "-c", SCRIPT],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=100,
            check=False,
        )
        said[name] = (done.returncode, done.stdout, done.stderr)
    assert said["ours"] == said["theirs"]
    assert said["ours"][0] == 0


def test_the_alias_replaces_nothing_unasked(tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [ROOT / "sampan", "install-docker-alias", "--dir", tmp_path, *words],
            capture_output=True,
            text=True,
            check=False,
        )

    other = tmp_path / "docker"
    other.write_text("#!/bin/sh\n")
    refused = run()
    assert refused.returncode == 1 and "--force replaces it" in refused.stderr
    assert run("--remove").returncode == 1 and other.read_text() == "#!/bin/sh\n"
    assert run("--force").returncode == 0 and other.resolve() == ROOT / "sampan"
    assert run().returncode == 0
    assert run("--remove").returncode == 0 and not other.is_symlink()
