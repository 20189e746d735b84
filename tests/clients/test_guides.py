"""The guides of docs/: every block of commands runs as the built site shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support import pages
from support.engine import Daemon, Engine


@pytest.mark.parametrize("name", ["networks", "sandboxes", "volumes", "without-root"])
def test_every_command(name: str, engine: Engine, tmp_path: Path) -> None:
    assert engine.busybox
    pages.run(name, engine.sampan, engine.sampan, tmp_path)


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
