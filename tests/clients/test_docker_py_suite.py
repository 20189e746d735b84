"""docker-py's own integration tests against the engine, and exactly those that fail, with the reason.

Left out: the files on plugins, Swarm and, wanting Docker Hub, images.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import docker_py
from support.engine import Engine

FILES = (
    "api_build", "api_container", "api_exec", "api_healthcheck", "api_volume", "client", "errors",
    "models_containers", "models_resources", "models_volumes", "api_network", "models_networks",
)  # fmt: skip
EXPECTED = {
    "AttachContainerTest::test_run_container_reading_socket_ws": "hands http+docker:// to websocket-client",
    "TestNetworks::test_create_check_duplicate": "wants two networks of one name, which Docker has given up",
    "TestNetworks::test_create_inspect_network_with_scope": "Swarm",
    "TestNetworks::test_create_network_attachable": "Swarm",
    "TestNetworks::test_create_network_ingress": "Swarm",
    "TestNetworks::test_create_network_ipv6_enabled": "an address for a subnet, which Docker refuses today",
    "ContainerCollectionTest::test_run_with_image_that_does_not_exist": "wants Docker Hub",
    "CreateContainerTest::test_create_with_restart_policy": "words that Docker has changed since",
    "ErrorsTest::test_api_error_parses_json": "words that Docker has changed since",
    "ContainerCPUTest::test_create_with_runtime": "sends a field at the wrong place, which Docker ignores",
    "ContainerTest::test_exec_run_failed": "126 for a program that is missing; Docker says 127 today",
}
# They do not wait for what they look at, and fail beside other tests only.
RACES = {
    "ListContainersTest::test_list_containers": "counts while one of an earlier test is being removed",
    **{
        f"BuildTest::test_build_{where}_dockerfile": "reads the logs of a program that has just been started"
        for where in ("in_context", "in_context_abs", "in_context_nested", "out_of_context")
    },
}
IMAGE = "mkdir -p /var/opt && echo postgres:x:70:70::/:/bin/sh >>/etc/passwd"


@pytest.mark.timeout(400)
@pytest.mark.skipif(not docker_py.available(), reason=f"needs docker-py's tests in {docker_py.ARCHIVE}")
def test_its_own_tests(engine: Engine, busybox: str, tmp_path: Path) -> None:
    suite = docker_py.unpack(tmp_path)
    engine.docker("run", "--name", "suite-image", busybox, "sh", "-c", IMAGE)
    names = ("alpine:3.10", "alpine:latest")
    for name in names:
        engine.docker("commit", "suite-image", name)
    command = [sys.executable, "-m", "pytest", "-q", "-rfE", "--tb=no", "--timeout=60", "-c", os.devnull]
    command += ["--rootdir", str(suite), "-p", "no:cacheprovider"]
    temporary = tmp_path / "t"  # where they leave things
    temporary.mkdir()
    own = {"PYTHONPATH": str(suite), "HOME": str(tmp_path), "TMPDIR": str(temporary)}
    done = subprocess.run(
        [*command, *(f"tests/integration/{name}_test.py" for name in FILES)],
        cwd=suite,
        env={**os.environ, "DOCKER_HOST": engine.host, **own},
        capture_output=True,
        text=True,
        timeout=390,
        check=False,
    )
    for container in engine.api.containers():  # its tests do not all tidy up
        engine.api.remove(container["Id"])
    for name in names:
        engine.api("DELETE", f"/images/{name}?force=1")
    failed = {match[1] for match in re.finditer(r"^(?:FAILED|ERROR) \S+?::(\S+)", done.stdout, re.MULTILINE)}
    assert failed - set(RACES) == set(EXPECTED), done.stdout[-6000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) > 120, done.stdout[-2000:]
