"""`--use-api-socket`: the daemon's socket and the user's credentials inside the container."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cli import Cli
from support.engine import Engine

pytestmark = pytest.mark.release28
Names = Callable[[], str]


def test_a_container_can_speak_to_the_engine(
    cli: Cli, engine: Engine, busybox: str, name: Names, tmp_path: Path
) -> None:
    auths = {"https://index.docker.io/v1/": {"auth": "YTpi"}, "registry.example.com": {"auth": "dTpw"}}
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths, "psFormat": "private"}))
    script = "test -S /var/run/docker.sock; echo $?; cd $DOCKER_CONFIG; stat -c '%a %u' *; cat config.json"
    options = ("--name", name(), "--use-api-socket", busybox)
    done = cli("run", *options, "sh", "-c", script, env={"DOCKER_CONFIG": str(tmp_path)})
    there, mode, written = done.out.split("\n", 2)
    assert (there, mode) == ("0", "600 0")
    assert json.loads(written) == {"auths": auths}  # nothing else of the user's file
    mounts = engine.api.inspect(options[1])["HostConfig"]["Mounts"]
    assert [(one["Source"], one["Target"]) for one in mounts] == [(engine.socket, "/var/run/docker.sock")]
