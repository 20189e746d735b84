"""Debian's docker-compose at our daemon: projects of several services, from `up` to `down`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support.engine import Engine
from support.machine import eventually
from support.needs import program

pytestmark = program("docker-compose")

PROJECT = """
version: "2.4"
services:
  web:
    image: busybox
    command: [sh, -c, "echo web up; while :; do cat /data/page | nc -l -p 80; done"]
    ports: ["80"]
    environment: {COLOUR: green}
    volumes: ["pages:/data"]
    depends_on: [writer]
    restart: unless-stopped
    labels: {tier: front}
  writer:
    build: {context: ., args: {TEXT: hello from writer}}
    command: [sh, -c, "cat /text >/data/page; echo written; exec sleep 1000"]
    volumes: ["pages:/data"]
    mem_limit: 64m
volumes:
  pages:
"""

Compose = Callable[..., str]


@pytest.fixture
def compose(engine: Engine, busybox: str, tmp_path: Path) -> Compose:
    """Runs docker-compose in the project's directory."""
    project = tmp_path / "ahoy"
    project.mkdir()
    (project / "docker-compose.yml").write_text(PROJECT.replace("busybox", busybox))
    (project / "Dockerfile").write_text(f"FROM {busybox}\nARG TEXT\nRUN echo $TEXT >/text\n")

    def run(*words: str, code: int = 0) -> str:
        done = subprocess.run(
            ["docker-compose", *words],
            cwd=project,
            env={"DOCKER_HOST": engine.host, "PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def _project(engine: Engine) -> dict[str, list[dict[str, str]]]:
    services: dict[str, list[dict[str, str]]] = {}
    for one in engine.api.containers():
        if one["Labels"].get("com.docker.compose.project") == "ahoy":
            services.setdefault(one["Labels"]["com.docker.compose.service"], []).append(one)
    return services


def test_a_project_from_up_to_down(compose: Compose, engine: Engine) -> None:
    if shutil.which("docker-compose") is None:
        pytest.skip("needs docker-compose")
    compose("up", "-d")
    try:
        found = _project(engine)
        assert {name: len(those) for name, those in found.items()} == {"web": 1, "writer": 1}
        shown = compose("ps")
        assert ("ahoy" in shown and "Up" in shown) or "running" in shown
        web = engine.api.inspect(found["web"][0]["Id"])
        assert web["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        port = web["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
        page = ["busybox", "nc", "-w", "2", "127.0.0.1", port]
        eventually(
            lambda: (
                subprocess.run(page, capture_output=True, text=True, check=False).stdout
                == "hello from writer\n"
            )
        )
        assert engine.api.inspect(found["writer"][0]["Id"])["HostConfig"]["Memory"] == 64 << 20
        logs = compose("logs")
        assert "web up" in logs and "written" in logs
        assert compose("exec", "-T", "web", "sh", "-c", "echo $COLOUR").strip() == "green"
        compose("exec", "-T", "web", "sh", "-c", "exit 7", code=7)
        compose("restart", "-t", "0", "web")
        eventually(lambda: _project(engine)["web"][0]["State"] == "running")
        compose("up", "-d", "--scale", "writer=3")
        assert len(_project(engine)["writer"]) == 3
        compose("stop", "-t", "0")
        assert {one["State"] for those in _project(engine).values() for one in those} == {"exited"}
        compose("start")
    finally:
        compose("down", "-v", "-t", "0", "--rmi", "local")
    assert _project(engine) == {}
    assert engine.api("GET", "/images/ahoy_writer/json").status == 404
    volumes = engine.api.get("/volumes")["Volumes"] or []
    assert not [one for one in volumes if one["Name"] == "ahoy_pages"], json.dumps(volumes)


NETWORKS = """
version: "2.4"
services:
  proxy:
    image: busybox
    command: [sh, -c, "while :; do nc 10.232.30.9 80 </dev/null | nc -l -p 80; done"]
    ports: ["80"]
    networks: {front: {}, back: {aliases: [gate]}}
  store:
    image: busybox
    command: [sh, -c, "while :; do echo treasure | nc -l -p 80; done"]
    networks: {back: {ipv4_address: 10.232.30.9, aliases: [hold]}}
networks:
  front:
    labels: {side: bow}
  back:
    internal: true
    ipam: {config: [{subnet: 10.232.30.0/24}]}
"""


def test_networks_of_its_own(compose: Compose, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "ahoy" / "docker-compose.yml").write_text(NETWORKS.replace("busybox", engine.busybox))
    compose("up", "-d")
    try:
        back = engine.api.get("/networks/ahoy_back")
        assert back["Internal"] and back["Labels"]["com.docker.compose.network"] == "back"
        assert engine.api.get("/networks/ahoy_front")["Labels"]["side"] == "bow"
        members = {member["Name"]: member["IPv4Address"] for member in back["Containers"].values()}
        assert members.pop("ahoy_store_1") == "10.232.30.9/24" and list(members) == ["ahoy_proxy_1"]
        networks = engine.api.inspect("ahoy_proxy_1")["NetworkSettings"]["Networks"]
        assert set(networks) == {"ahoy_front", "ahoy_back"}
        assert {"gate", "proxy", "ahoy_proxy_1"} <= set(networks["ahoy_back"]["DNSNames"])
        published = engine.api.inspect("ahoy_proxy_1")["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"]
        page = ["busybox", "nc", "-w", "2", "127.0.0.1", published]

        def answer() -> str:
            return subprocess.run(page, capture_output=True, text=True, check=False).stdout

        eventually(lambda: answer() == "treasure\n")
        assert compose("exec", "-T", "store", "ip", "route").count("default") == 0, "no way out of the store"
        compose("up", "-d")
        assert "Up" in compose("ps")
        compose("restart", "-t", "0", "store")
        eventually(lambda: answer() == "treasure\n")
    finally:
        compose("down", "-v", "-t", "0", "--rmi", "local")
    assert _project(engine) == {}
    assert engine.api("GET", "/images/ahoy_writer/json").status == 404
    assert not [one for one in engine.api.get("/networks") if one["Name"].startswith("ahoy_")]
