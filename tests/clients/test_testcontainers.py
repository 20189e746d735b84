"""testcontainers from PyPI, as a project's own tests use it, pointed at our daemon by DOCKER_HOST alone.

Its reaper (ryuk) is an image of Docker Hub's, which no test may fetch: it is switched off by its variable.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.engine import Engine

PROGRAM = """
import json, socket, sys, urllib.request
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.waiting_utils import wait_for_logs

context, volume = sys.argv[1:]
script = (
    "mkdir -p /www; echo $GREETING >/www/index; cat /data/file >/www/file; echo serving; "
    "printf 'HTTP/1.0 200 OK\\\\r\\\\n\\\\r\\\\n' >/www/head; "
    "while :; do cat /www/head /www/index /www/file | nc -l -p 8000; done"
)
image = DockerImage(path=context, tag="testcontainers:built", buildargs={"GREETING": "ahoy"}).build()
container = (
    DockerContainer(str(image))
    .with_exposed_ports(8000)
    .with_volume_mapping(volume, "/data", "ro")
    .with_command(["sh", "-c", script])
)
found = {}
with container as running:
    wait_for_logs(running, "serving", timeout=20)
    found["id"] = running.get_wrapped_container().id
    host, port = running.get_container_host_ip(), int(running.get_exposed_port(8000))
    for _ in range(50):
        try:
            found["answer"] = urllib.request.urlopen(f"http://{host}:{port}/", timeout=5).read().decode()
            break
        except OSError:
            continue
    code, output = running.exec(["sh", "-c", "echo $GREETING; exit 3"])
    found["exec"] = [code, output.decode()]
    found["logs"] = running.get_logs()[0].decode()
image.remove()
print(json.dumps(found))
"""


def test_a_service_with_port_environment_and_volume(engine: Engine, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    (tmp_path / "context").mkdir()
    (tmp_path / "context/Dockerfile").write_text(f"FROM {busybox}\nARG GREETING\nENV GREETING=$GREETING\n")
    environment = {
        "DOCKER_HOST": engine.host,
        "TESTCONTAINERS_RYUK_DISABLED": "true",
        "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "context"), str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["answer"] == "ahoy\nfrom the host\n"
    assert found["exec"] == [3, "ahoy\n"]
    assert "serving" in found["logs"]
    assert engine.api("GET", "/images/testcontainers:built/json").status == 404
    assert all(one["Id"] != found["id"] for one in engine.api.containers()), "it is removed at the end"
