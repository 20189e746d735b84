"""`run -v` and `--mount`: binds, propagation, named volumes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cli import Cli
from support.engine import Engine

Names = Callable[[], str]


def test_bind_both_ways(cli: Cli, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    script = "cat /data/in; echo 'from inside' >/data/out"
    assert cli("run", "--rm", "-v", f"{tmp_path}:/data", busybox, "sh", "-c", script).out == "from the host\n"
    assert (tmp_path / "out").read_text() == "from inside\n"


def test_read_only_bind(cli: Cli, busybox: str, tmp_path: Path) -> None:
    done = cli("run", "--rm", "-v", f"{tmp_path}:/data:ro", busybox, "touch", "/data/x", code=1)
    assert "Read-only file system" in done.err


def test_missing_source_is_made_by_v_and_refused_by_mount(cli: Cli, busybox: str, tmp_path: Path) -> None:
    cli("run", "--rm", "-v", f"{tmp_path}/made:/data", busybox, "true")
    assert (tmp_path / "made").is_dir()
    option = f"type=bind,src={tmp_path}/missing,dst=/data"
    done = cli("run", "--rm", "--mount", option, busybox, "true", code=125)
    assert "bind source path does not exist" in done.err


def test_a_single_file(cli: Cli, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1\n")
    assert (
        cli("run", "--rm", "-v", f"{tmp_path}/one:/etc/deep/one", busybox, "cat", "/etc/deep/one").out
        == "1\n"
    )


def test_a_file_is_no_directory(cli: Cli, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1\n")
    for source, place in ((tmp_path, "/etc/plain"), (tmp_path / "one", "/etc")):
        done = cli("run", "--rm", "-v", f"{source}:{place}", busybox, "true", code=125)
        assert "mount a directory onto a file (or vice-versa)?" in done.err


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory that is a shared mount of its own (mount_namespaces(7))."""
    subprocess.run(["mount", "--bind", tmp_path, tmp_path], check=True)
    subprocess.run(["mount", "--make-shared", tmp_path], check=True)
    (tmp_path / "later").mkdir()
    yield tmp_path
    subprocess.run(["umount", "-R", tmp_path], check=True)


@pytest.mark.parametrize(("mode", "visible"), [("rslave", True), ("rprivate", False)])
def test_propagation(
    cli: Cli, engine: Engine, busybox: str, name: Names, shared: Path, mode: str, visible: bool
) -> None:
    one = name()
    cli("run", "-d", "--name", one, "-v", f"{shared}:/data:{mode}", busybox, "sleep", "30")
    subprocess.run(["mount", "-t", "tmpfs", "none", shared / "later"], check=True)
    assert (" /data/later " in cli("exec", one, "cat", "/proc/mounts").out) is visible
    mount = engine.api.inspect(one)["Mounts"][0]
    assert (mount["Type"], mount["Destination"], mount["Propagation"]) == ("bind", "/data", mode)


def test_named_volume_keeps_and_copies_up(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    volume = name()
    try:
        cli("run", "--rm", "-v", f"{volume}:/etc", busybox, "sh", "-c", "echo kept >/etc/new")
        done = cli("run", "--rm", "-v", f"{volume}:/data", busybox, "cat", "/data/new", "/data/plain")
        assert done.out == "kept\nnot a program\n"
    finally:
        assert engine.api("DELETE", f"/volumes/{volume}").status == 204


def test_anonymous_volume_goes_with_rm(cli: Cli, engine: Engine, busybox: str) -> None:
    before = engine.api.get("/volumes")["Volumes"] or []
    cli("run", "--rm", "-v", "/data", busybox, "touch", "/data/x")
    assert len(engine.api.get("/volumes")["Volumes"] or []) == len(before)
