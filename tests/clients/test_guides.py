"""The guides of docs/: every block of commands runs as the built site shows it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support import pages
from support.engine import Daemon, Engine
from support.machine import eventually
from support.needs import program
from support.nets import another_machine

GUIDES = ["daemon", "egress", "firewall", "networks", "registry", "sandboxes", "volumes", "without-root"]


@pytest.mark.parametrize("name", GUIDES)
def test_every_command(name: str, engine: Engine, tmp_path: Path) -> None:
    assert engine.busybox
    pages.run(name, engine.sampan, engine.sampan, tmp_path)


@program("nft", "nftables")
def test_a_rule_that_restricts_a_published_port(engine: Engine, busybox: str) -> None:
    """The one of the page, which is to let in a network, seen from a machine within it and without."""
    rules = [one.command for one in pages.commands("firewall") if one.command.startswith("nft ")]
    adding, (removing,) = rules[:-1], rules[-1:]
    serve = "mkdir /www; echo ahoy >/www/index.html; exec httpd -f -h /www"
    engine.sampan("run", "-d", "--name", "shop", "-p", "8080:80", busybox, "sh", "-c", serve)
    try:
        with another_machine() as (here, _, far):
            ask = ("timeout", "5", "busybox", "wget", "-q", "-O", "-", f"http://{here}:8080/")
            eventually(lambda: far(*ask) == "ahoy\n", timeout=30)
            for network, answer in (("198.51.100.0/24", "ahoy\n"), ("192.0.2.0/24", "")):
                script = "\n".join(["set -e", *adding]).replace("192.0.2.0/24", network)
                subprocess.run(["bash", "-c", script], check=True)
                try:
                    assert far(*ask) == answer, network
                finally:
                    subprocess.run(["bash", "-c", removing], check=True)
    finally:
        engine.sampan("rm", "-f", "shop")


def test_moving_from_another(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """Docker's part is played by a second daemon, with what people have there."""
    ours, other = make_daemon().start(), make_daemon().start()
    try:
        assert other.busybox
        other.docker("create", "--name", "pet", "busybox", "true")
        (tmp_path / "note").write_text("ahoy\n")
        other.docker("cp", str(tmp_path / "note"), "pet:/note")
        other.docker("commit", "pet", "busybox:1.36")
        script = "echo tea >/data/list; chown 1000:1000 /data/list"
        other.docker("run", "--rm", "-v", "cargo:/data", "busybox", "sh", "-c", script)
        addresses = {"unix:///run/docker.sock": other.host, "unix:///run/sampan/sampan.sock": ours.host}
        pages.run("moving-from-docker", ours.sampan, ours.sampan, tmp_path, addresses)
    finally:
        other.end()
        ours.end()
