"""`docker volume …`, what volumes are made of, and what becomes of their data; by both command lines."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.cli import Cli
from support.engine import Daemon, Engine
from support.machine import eventually

Names = Callable[[], str]


@pytest.fixture
def fresh(engine: Engine, name: Names) -> Iterator[Names]:
    """Names of volumes, which are removed at the end."""
    given: list[str] = []

    def one() -> str:
        given.append(name() + "-volume")
        return given[-1]

    yield one
    for container in engine.api.containers():
        if any(mount.get("Name") in given for mount in container["Mounts"]):
            engine.api.remove(container["Id"])
    for volume in given:
        engine.api("DELETE", f"/volumes/{volume}?force=1")


def place(engine: Engine, volume: str) -> Path:
    """Where a volume's files are."""
    return Path(engine.api.get(f"/volumes/{volume}")["Mountpoint"])


def test_the_life_of_a_volume(cli: Cli, engine: Engine, busybox: str, fresh: Names, name: Names) -> None:
    one, container = fresh(), name()
    assert cli("volume", "create", "--label", "tier=front", one).out == f"{one}\n"
    assert cli("volume", "create", one).out == f"{one}\n"  # as it is
    (shown,) = json.loads(cli("volume", "inspect", one).out)
    assert shown["Labels"] == {"tier": "front"} and shown["Options"] is None
    assert (shown["Driver"], shown["Scope"], shown["Name"]) == ("local", "local", one)
    assert cli("volume", "ls", "-q", "--filter", "label=tier=front").out == f"{one}\n"
    assert cli("volume", "ls", "-q", "--filter", f"name={one}", "--filter", "dangling=false").out == ""
    cli("run", "--name", container, "-v", f"{one}:/v", busybox, "sh", "-c", "echo kept >/v/file")
    identity = engine.api.inspect(container)["Id"]
    assert engine.api.inspect(container)["Mounts"][0]["Mode"] == "z"  # as in Docker
    assert (
        cli("volume", "ls", "-q", "--filter", f"name={one}", "--filter", "dangling=false").out == f"{one}\n"
    )
    done = cli("volume", "rm", one, code=1)
    assert f"remove {one}: volume is in use - [{identity}]" in done.err
    assert engine.api("DELETE", f"/volumes/{one}?force=1").status == 409
    cli("rm", container)
    assert (place(engine, one) / "file").read_text() == "kept\n"
    assert cli("run", "--rm", "-v", f"{one}:/other", busybox, "cat", "/other/file").out == "kept\n"
    directory = place(engine, one).parent
    assert cli("volume", "rm", one).out == f"{one}\n"
    assert not directory.exists()
    assert f"get {one}: no such volume" in cli("volume", "rm", one, code=1).err
    cli("volume", "rm", "-f", one)


def test_prune(cli: Cli, own: Daemon) -> None:
    client = own.cli(cli.name)
    nameless = client("volume", "create").out.strip()
    for one, label in (("plain", "a=b"), ("kept-by-label", "keep=1"), ("used", "a=b")):
        client("volume", "create", "--label", label, one)
    own.docker("create", "--name", "user", "-v", "used:/v", own.busybox, "true")
    (place(own, "plain") / "file").write_bytes(bytes(1000))
    assert nameless in client("volume", "prune", "-f").out
    left = {volume["Name"] for volume in own.api.get("/volumes")["Volumes"]}
    assert left == {"plain", "kept-by-label", "used"}
    done = client("volume", "prune", "-f", "--all", "--filter", "label!=keep").out
    assert "plain" in done and "Total reclaimed space: 1kB" in done
    assert {volume["Name"] for volume in own.api.get("/volumes")["Volumes"]} == {"kept-by-label", "used"}


def test_anonymous_ones_go_with_rm_v_only(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    kept, gone = name(), name()
    volumes = []
    for one in (kept, gone):
        cli("run", "--name", one, "-v", "/data", busybox, "touch", "/data/x")
        volumes.append(engine.api.inspect(one)["Mounts"][0]["Name"])
    cli("rm", kept)
    cli("rm", "-v", gone)
    assert engine.api("GET", f"/volumes/{volumes[0]}").status == 200
    assert engine.api("GET", f"/volumes/{volumes[1]}").status == 404
    assert engine.api("DELETE", f"/volumes/{volumes[0]}").status == 204


# --- options of the local driver ---


def test_a_bind_as_a_volume(cli: Cli, engine: Engine, busybox: str, fresh: Names, tmp_path: Path) -> None:
    one = fresh()
    (tmp_path / "file").write_text("theirs\n")
    options = ["-o", "type=none", "-o", "o=bind,ro", "-o", f"device={tmp_path}"]
    cli("volume", "create", *options, one)
    assert engine.api.get(f"/volumes/{one}")["Options"]["o"] == "bind,ro"
    done = cli("run", "--rm", "-v", f"{one}:/v", busybox, "sh", "-c", "cat /v/file; touch /v/x", code=1)
    assert done.out == "theirs\n" and "Read-only file system" in done.err
    eventually(lambda: str(place(engine, one)) not in Path("/proc/self/mountinfo").read_text())
    cli("volume", "rm", one)
    assert (tmp_path / "file").read_text() == "theirs\n"


def test_a_tmpfs_lives_while_somebody_uses_it(
    cli: Cli, engine: Engine, busybox: str, fresh: Names, name: Names
) -> None:
    one, first, second = fresh(), name(), name()
    cli("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=2m,uid=7,noexec", one)
    for container in (first, second):
        cli("run", "-d", "--name", container, "-v", f"{one}:/v", busybox, "sleep", "60")
    seen = cli("exec", first, "sh", "-c", "grep ' /v ' /proc/mounts; stat -c %u /v; echo x >/v/file").lines
    assert "size=2048k" in seen[0] and "noexec" in seen[0] and seen[1] == "7"
    cli("kill", first)
    assert cli("exec", second, "cat", "/v/file").out == "x\n"
    cli("kill", second)
    eventually(lambda: str(place(engine, one)) not in Path("/proc/self/mountinfo").read_text())
    cli("start", second)
    assert cli("exec", second, "ls", "/v").out == ""


def test_what_cannot_be_mounted_says_so(
    cli: Cli, engine: Engine, busybox: str, fresh: Names, name: Names
) -> None:
    one, container = fresh(), name()
    cli("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/no/such/place", one)
    done = cli("run", "--name", container, "-v", f"{one}:/v", busybox, "true", code=127)  # "no such file"
    target = place(engine, one)
    assert f"error while mounting volume '{target}': failed to mount local volume: mount " in done.err
    assert f"mount /no/such/place:{target}: no such file or directory" in done.err
    two = fresh()
    cli("volume", "create", "-o", "type=cifs", "-o", "device=//127.0.0.1/x", "-o", "o=password=geheim", two)
    done = cli("run", "--rm", "-v", f"{two}:/v", busybox, "true", code=None)
    assert done.code != 0 and "geheim" not in done.err


def test_options_in_mount(cli: Cli, engine: Engine, busybox: str, fresh: Names) -> None:
    one = fresh()
    options = "volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=mode=700,volume-label=a=b"
    mount = f"type=volume,src={one},dst=/v,{options}"
    assert cli("run", "--rm", "--mount", mount, busybox, "stat", "-c", "%a", "/v").out == "700\n"
    shown = engine.api.get(f"/volumes/{one}")
    assert shown["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "mode=700"}
    assert shown["Labels"] == {"a": "b"}


def test_a_size_where_there_are_no_quotas(cli: Cli, daemon: Daemon) -> None:
    done = cli("volume", "create", "-o", "size=10m", "limited", code=None)
    if done.code == 0:
        cli("volume", "rm", "limited")
        pytest.skip("this file system has project quotas")
    assert "quota size requested but no quota support: " in done.err
    assert daemon.api("GET", "/volumes/limited").status == 404


# --- data, as the tutorial has it ---


def test_host_and_container_see_each_others_changes(
    cli: Cli, busybox: str, tmp_path: Path, name: Names
) -> None:
    """At once, both ways, also after edits while the container was stopped; read-only means read-only."""
    one = name()
    (tmp_path / "file").write_text("one\n")
    cli("run", "-d", "--name", one, "-v", f"{tmp_path}:/opt/app", busybox, "sleep", "600")
    assert cli("exec", one, "cat", "/opt/app/file").out == "one\n"
    (tmp_path / "file").write_text("two\n")
    (tmp_path / "new").write_text("")
    assert cli("exec", one, "sh", "-c", "cat /opt/app/file; ls /opt/app").out == "two\nfile\nnew\n"
    cli("exec", one, "sh", "-c", "echo three >/opt/app/file; rm /opt/app/new; mkdir /opt/app/made")
    assert (tmp_path / "file").read_text() == "three\n"
    assert sorted(os.listdir(tmp_path)) == ["file", "made"]
    cli("stop", "-t", "0", one)
    (tmp_path / "file").write_text("while it was stopped\n")
    cli("start", one)
    assert cli("exec", one, "cat", "/opt/app/file").out == "while it was stopped\n"
    done = cli("run", "--rm", "-v", f"{tmp_path}:/opt/app:ro", busybox, "rm", "/opt/app/file", code=1)
    assert "Read-only file system" in done.err and (tmp_path / "file").exists()


def test_a_container_of_volumes(cli: Cli, busybox: str, fresh: Names, name: Names) -> None:
    """数据卷容器: another container mounts all that the first one has, and both see the same files."""
    store = name()
    cli("create", "--name", store, "-v", "/etc", busybox, "true")  # one that is never started
    assert cli("run", "--rm", "--volumes-from", store, busybox, "cat", "/etc/plain").out == "not a program\n"
    assert cli("rm", "-v", store).out.strip() == store
    parent, child, one = name(), name(), fresh()
    cli("run", "-d", "--name", parent, "-v", f"{one}:/shared", busybox, "sleep", "60")
    cli("run", "-d", "--name", child, "--volumes-from", parent, busybox, "sleep", "60")
    cli("exec", child, "sh", "-c", "echo hello >/shared/file")
    assert cli("exec", parent, "cat", "/shared/file").out == "hello\n"
    cli("rm", "-f", parent)
    assert cli("exec", child, "cat", "/shared/file").out == "hello\n"


def test_many_share_one_that_is_filled_once(
    cli: Cli, engine: Engine, busybox: str, fresh: Names, name: Names
) -> None:
    """Containers that start at the same moment all see the whole of what the image has there."""
    one = fresh()
    names = [name() for _ in range(6)]
    words = ("-v", f"{one}:/bin", busybox, "/bin/busybox", "sh", "-c", "ls /bin | wc -l")
    with ExitStack() as stack:
        clients = [stack.enter_context(cli.start("run", "--name", container, *words)) for container in names]
        counts = {client.communicate(timeout=60)[0].split()[0] for client in clients}
    assert counts == {cli("run", "--rm", busybox, "sh", "-c", "ls /bin | wc -l").out.strip().encode()}


def test_events_tell_of_volumes(cli: Cli, engine: Engine, busybox: str, fresh: Names, name: Names) -> None:
    one, container = fresh(), name()
    cli("run", "--rm", "--name", container, "-v", f"{one}:/v:ro", busybox, "true")
    cli("volume", "rm", one)

    def actions() -> list[str]:
        filters = json.dumps({"type": ["volume"], "volume": [one]}, separators=(",", ":"))
        answer = engine.api(
            "GET", f"/events?since=1&until={time.time():.3f}&filters={filters}".replace('"', "%22")
        )
        return [json.loads(line)["Action"] for line in answer.body.splitlines()]

    eventually(lambda: sorted(actions()) == ["create", "destroy", "mount", "unmount"])


# --- accounting, and how long it takes ---


def test_df_counts_each_volume_once(cli: Cli, own: Daemon, tmp_path: Path) -> None:
    client = own.cli(cli.name)
    (tmp_path / "file").write_bytes(bytes(5000))
    client("volume", "create", "mine")
    client("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}", "elsewhere")
    (place(own, "mine") / "file").write_bytes(bytes(3000))
    os.link(place(own, "mine") / "file", place(own, "mine") / "again")
    for container in ("first", "second"):
        mounts = ["-v", "mine:/a", "-v", "mine:/b", "-v", "elsewhere:/c"]
        client("run", "-d", "--name", container, *mounts, own.busybox, "sleep", "60")
    usage = own.api.get("/system/df")
    found = {volume["Name"]: volume["UsageData"] for volume in usage["Volumes"]}
    assert found == {"mine": {"RefCount": 2, "Size": 3000}, "elsewhere": {"RefCount": 2, "Size": 0}}
    assert all(container["SizeRw"] < 3000 for container in usage["Containers"])
    lines = client("system", "df").lines
    (line,) = [one for one in lines if one.startswith("Local Volumes")]
    assert line.split()[2:5] == ["2", "2", "3kB"]


@pytest.fixture
def full(engine: Engine, busybox: str, name: Names) -> str:
    """A container with 10,000 files of its own and a nameless volume with as many; ended."""
    one = name()
    engine.docker("create", "--name", one, "-v", "/data", busybox, "true")
    engine.docker("start", "-a", one)
    (upper,) = {engine.api.inspect(one)["GraphDriver"]["Data"]["UpperDir"]}
    (volume,) = {mount["Source"] for mount in engine.api.inspect(one)["Mounts"]}
    for top in (upper, volume):
        for number in range(10):
            inner = Path(top, f"many{number}")
            inner.mkdir()
            for file in range(1000):
                os.close(os.open(inner / str(file), os.O_CREAT | os.O_WRONLY))
    return one


def test_nobody_waits_for_many_files(engine: Engine, full: str) -> None:
    """Compared with how long the deletion takes, which goes on behind it."""
    data = engine.api.inspect(full)
    upper = Path(data["GraphDriver"]["Data"]["UpperDir"])
    volume = Path(data["Mounts"][0]["Source"]).parent
    root = volume.parent
    before = os.times().elapsed
    assert engine.api("DELETE", f"/containers/{full}?v=1").status == 204
    answered = os.times().elapsed
    assert not volume.exists()
    eventually(lambda: not upper.exists() and not list(root.glob(".trash-*")), timeout=120)
    deleted = os.times().elapsed
    assert answered - before < max(0.5, (deleted - before) / 3)
