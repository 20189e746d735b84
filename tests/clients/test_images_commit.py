"""`commit`, `export` and the way back by `import`, with both command lines, judged by kernel and tar."""

from __future__ import annotations

import io
import json
import os
import stat
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.cli import Cli
from support.engine import Engine
from support.machine import eventually

Names = Callable[[], str]


@pytest.fixture
def image(engine: Engine, name: Names) -> Iterator[str]:
    """A repository's name; its images are removed at the end."""
    given = f"commit-{name()}"
    yield given
    for one in engine.api.get("/images/json?all=1"):
        for tag in one["RepoTags"] or []:
            if tag.startswith(given):
                engine.api("DELETE", f"/images/{tag}?force=1")


def inspect(engine: Engine, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = engine.api.get(f"/images/{name}/json")
    return shown


def members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {member.name: member for member in opened}


def test_commit_keeps_changes_and_config(
    cli: Cli, engine: Engine, busybox: str, name: Names, image: str
) -> None:
    container = name()
    script = "echo new > /new; rm /etc/plain; rm -r /home; mkdir /home; chmod 750 /root"
    cli("run", "--name", container, "-e", "KEPT=1", "-w", "/tmp", busybox, "sh", "-c", script)
    done = cli(
        *("commit", "-a", "Some One <one@example.com>", "-m", "a note", "-c", "ENV MORE=2"),
        *("-c", 'CMD ["cat", "/new"]', container, f"{image}:v1"),
    )
    shown = inspect(engine, f"{image}:v1")
    assert done.out == f"{shown['Id']}\n"
    assert (shown["Author"], shown["Comment"]) == ("Some One <one@example.com>", "a note")
    assert shown["Config"]["Cmd"] == ["cat", "/new"]
    assert {"KEPT=1", "MORE=2"} <= set(shown["Config"]["Env"])
    assert shown["Config"]["WorkingDir"] == "/tmp"
    base = inspect(engine, busybox)
    assert shown["Parent"] == base["Id"]
    assert shown["RootFS"]["Layers"][:-1] == base["RootFS"]["Layers"]
    assert cli("run", "--rm", f"{image}:v1").out == "new\n"
    look = "ls /etc/plain; ls -A /home; stat -c %a /root"
    assert cli("run", "--rm", f"{image}:v1", "sh", "-c", look).lines == ["750"]
    steps = cli(
        "history", "--no-trunc", "--format", "{{.ID}}|{{.CreatedBy}}|{{.Comment}}", f"{image}:v1"
    ).lines
    assert steps[0] == f"{shown['Id']}|sh -c {script}|a note"
    assert steps[1].startswith(f"{base['Id']}|")


def test_commit_without_name_or_change(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    container = name()
    cli("create", "--name", container, busybox)
    image_id = cli("commit", container).out.strip()
    try:
        shown = inspect(engine, image_id)
        assert shown["RepoTags"] == []
        assert shown["RootFS"]["Layers"] == inspect(engine, busybox)["RootFS"]["Layers"]
        assert shown["Config"]["Cmd"] == ["sh"]
        dangling = cli("images", "-q", "--no-trunc", "-f", "dangling=true").lines
        assert image_id in dangling
    finally:
        cli("rmi", image_id)


def test_a_new_entrypoint_drops_the_old_command(
    cli: Cli, engine: Engine, busybox: str, name: Names, image: str
) -> None:
    container = name()
    cli("create", "--name", container, busybox, "sh")
    cli("commit", "-c", 'ENTRYPOINT ["/x"]', container, f"{image}:1")
    cli("commit", "-c", 'CMD ["/y"]', "-c", 'ENTRYPOINT ["/x"]', container, f"{image}:2")
    first, second = inspect(engine, f"{image}:1")["Config"], inspect(engine, f"{image}:2")["Config"]
    assert (first["Entrypoint"], first.get("Cmd")) == (["/x"], None)
    assert (second["Entrypoint"], second["Cmd"]) == (["/x"], ["/y"])


@pytest.mark.dealt
@pytest.mark.parametrize("state", ["running", "paused", "stopped"])
def test_every_instruction_in_every_state(
    cli: Cli, engine: Engine, busybox: str, name: Names, image: str, state: str
) -> None:
    container = name()
    engine.docker("run", "-d", "--name", container, busybox, "sleep", "600")
    if state != "running":
        engine.docker(*(("pause",) if state == "paused" else ("stop", "-t", "0")), container)
    changes = (
        'CMD ["a", "b"]', "ENTRYPOINT /bin/x y", "ENV one=1 two=2", "EXPOSE 80 53/udp", "LABEL l=m n=o",
        "ONBUILD RUN true", "USER alice:staff", "VOLUME /one /two", "WORKDIR /home",
        "HEALTHCHECK --retries=4 CMD test -e /x", "STOPSIGNAL SIGINT", 'SHELL ["/bin/ash", "-c"]',
    )  # fmt: skip
    cli("commit", *(word for change in changes for word in ("-c", change)), container, f"{image}:1")
    config = inspect(engine, f"{image}:1")["Config"]
    assert config["Cmd"] == ["a", "b"]
    assert config["Entrypoint"] == ["/bin/sh", "-c", "/bin/x y"]
    assert {"one=1", "two=2"} <= set(config["Env"])
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp"}
    assert config["Labels"] == {"l": "m", "n": "o"}
    assert config["OnBuild"] == ["RUN true"]
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("alice:staff", "/home", "SIGINT")
    assert set(config["Volumes"]) == {"/one", "/two"}
    health = config["Healthcheck"]
    assert (health["Test"], health["Retries"]) == (["CMD-SHELL", "test -e /x"], 4)
    assert config["Shell"] == ["/bin/ash", "-c"]
    assert engine.api.inspect(container)["State"]["Paused"] == (state == "paused")
    assert "bin/busybox" in members(cli("export", container).raw)


def test_parents_and_children(cli: Cli, engine: Engine, busybox: str, name: Names, image: str) -> None:
    """An image that others were made from goes with the last of them, not before."""
    container = name()
    cli("run", "--name", container, busybox, "touch", "/one")
    cli("commit", container, f"{image}:parent")
    child = name()
    cli("run", "--name", child, f"{image}:parent", "touch", "/two")
    cli("commit", child, f"{image}:child")
    cli("rm", child)
    parent_id = inspect(engine, f"{image}:parent")["Id"]
    refused = cli("rmi", parent_id, code=1)
    assert "image has dependent child images" in refused.err
    assert cli("rmi", f"{image}:parent").lines == [f"Untagged: {image}:parent"]
    assert parent_id not in cli("images", "-q", "--no-trunc").lines
    assert parent_id in cli("images", "-aq", "--no-trunc").lines
    gone = cli("rmi", f"{image}:child").lines
    assert gone[0] == f"Untagged: {image}:child"
    assert f"Deleted: {parent_id}" in gone
    assert engine.api("GET", f"/images/{parent_id}/json").status == 404
    cli("run", "--rm", busybox, "true")


def test_a_running_container_is_frozen_meanwhile(
    cli: Cli, engine: Engine, busybox: str, name: Names, image: str
) -> None:
    """Two files that are always written together are together in the image; the container goes on after."""
    container = name()
    script = "i=0; while :; do i=$((i+1)); for f in a b; do echo $i > /t; mv /t /$f; done; done"
    cli("run", "-d", "--name", container, busybox, "sh", "-c", script)
    since = time.time()
    eventually(lambda: cli("exec", container, "cat", "/b", code=None).code == 0, what="both files are there")
    cli("commit", container, f"{image}:1")
    cli("commit", "--pause=false", container, f"{image}:2")
    first, second = cli("run", "--rm", f"{image}:1", "cat", "/a", "/b").lines
    assert abs(int(first) - int(second)) <= 1
    before = cli("exec", container, "cat", "/b").out
    eventually(lambda: cli("exec", container, "cat", "/b").out != before, what="the container goes on")
    said = engine.api("GET", f"/events?since={since}&until={time.time()}").body.splitlines()
    events: list[dict[str, Any]] = [json.loads(line) for line in said]
    actions = [event["Action"] for event in events if event["Actor"]["Attributes"].get("name") == container]
    actions = [action for action in actions if not action.startswith("exec")]
    assert actions[:3] == ["pause", "unpause", "commit"]
    assert actions.count("pause") == 1
    told = next(event for event in events if event["Action"] == "commit")["Actor"]["Attributes"]
    assert told["imageRef"] == f"{image}:1"
    assert told["imageID"] == inspect(engine, f"{image}:1")["Id"]


def test_commit_through_the_api(engine: Engine, busybox: str, name: Names, image: str) -> None:
    container = name()
    engine.docker("create", "--name", container, "-e", "A=1", busybox, "sh")
    answer = engine.api(
        "POST",
        f"/commit?container={container}&repo={image}&tag=1&comment=c&changes=USER%20alice",
        {"Cmd": ["z"], "Env": ["Q=1"], "Labels": {"l": "m"}},
    )
    assert answer.status == 201
    config = inspect(engine, f"{image}:1")["Config"]
    assert (config["Cmd"], config["Labels"], config["User"]) == (["z"], {"l": "m"}, "alice")
    assert set(config["Env"]) >= {"A=1", "Q=1"}
    for query, status in (
        ("container=nope-nope", 404),
        ("", 400),
        (f"container={container}&repo=UPPER", 400),
        (f"container={container}&changes=FROM%20x", 400),
        (f"container={container}&repo={image}@sha256:{'0' * 64}", 400),
    ):
        assert engine.api("POST", f"/commit?{query}").status == status, query


def test_commit_of_what_is_hard_to_copy(
    cli: Cli, engine: Engine, debian: str, name: Names, image: str
) -> None:
    """Hard links, devices, holes, attributes, sockets, odd names."""
    container = name()
    script = """
        mkdir -p /t/deep && cd /t && echo one > a && ln a b && ln a deep/c && ln -s ../etc l
        mknod n c 1 3 && mkfifo p && truncate -s 1000000 hole && printf end >> hole
        touch "$(printf 'odd\\nname')" && chown 1234:4321 a && chmod 4755 b
        setfattr -n user.colour -v blue a && setcap cap_net_raw+ep hole
        perl -MSocket -e 'socket(S,AF_UNIX,SOCK_STREAM,0); bind(S,sockaddr_un("/t/sock"))'
        rm /etc/debian_version && rm -r /usr/share/doc && mkdir /usr/share/doc && mv /opt /opt2
    """
    cli("run", "--name", container, debian, "bash", "-ec", script)
    cli("commit", container, f"{image}:1")
    look = """
        cd /t; stat -c '%n %a %u %g %h %s %F' a b deep/c l n p hole odd*; cat a deep/c; getcap hole
        getfattr --only-values -n user.colour a; echo; tail -c 3 hole; echo; ls -A /usr/share/doc
        ls -d /etc/debian_version /opt /opt2 /t/sock
    """
    done = cli("run", "--rm", f"{image}:1", "bash", "-c", look, code=None)
    assert done.out.split("\n") == [
        "a 4755 1234 4321 3 4 regular file",
        "b 4755 1234 4321 3 4 regular file",
        "deep/c 4755 1234 4321 3 4 regular file",
        "l 777 0 0 1 6 symbolic link",
        "n 644 0 0 1 0 character special file",
        "p 644 0 0 1 0 fifo",
        "hole 644 0 0 1 1000003 regular file",
        "odd",
        "name 644 0 0 1 0 regular empty file",
        "one",
        "one",
        "hole cap_net_raw=ep",
        "blue",
        "end",
        "/opt2",
        "",
    ]


def test_export_and_import(
    cli: Cli, engine: Engine, busybox: str, name: Names, image: str, tmp_path: Path
) -> None:
    """The round trip keeps every file and forgets history and config."""
    container = name()
    script = "mkdir /t; cd /t; echo one > a; ln a b; mknod n c 1 3; chown 12:34 a; chmod 4750 a; mkfifo p"
    cli(
        "run",
        "--name",
        container,
        "-v",
        "/vol",
        "-e",
        "LOST=1",
        busybox,
        "sh",
        "-c",
        script + "; touch /vol/x",
    )
    file = tmp_path / "out.tar"
    assert cli("export", "-o", str(file), container).out == ""
    archive = cli("export", container).raw
    assert archive == file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = members(archive)
    assert found["t/a"].mode == 0o4750
    assert (found["t/a"].uid, found["t/a"].gid) == (12, 34)
    assert found["t/b"].islnk()
    assert found["t/n"].ischr()
    assert found["t/p"].isfifo()
    assert "bin/busybox" in found
    assert "vol/x" not in found
    cli("import", str(file), f"{image}:flat")
    shown = inspect(engine, f"{image}:flat")
    assert len(shown["RootFS"]["Layers"]) == 1
    assert not shown["Config"]["Env"]
    assert not shown["Config"]["Cmd"]
    assert shown["Parent"] == ""
    assert len(cli("history", "-q", f"{image}:flat").lines) == 1
    again = name()
    cli("create", "--name", again, f"{image}:flat", "sh")
    second = members(cli("export", again).raw)

    def facts(one: dict[str, tarfile.TarInfo]) -> dict[str, tuple[object, ...]]:
        return {
            key: (m.type, m.mode, m.uid, m.gid, m.size, m.linkname, m.mtime)
            for key, m in one.items()
            if not m.isdir()
        }

    assert facts(second) == facts(found)


def test_export_of_a_running_container_and_what_cannot_be(
    cli: Cli, engine: Engine, busybox: str, name: Names, tmp_path: Path
) -> None:
    container = name()
    cli("run", "-d", "--name", container, busybox, "sh", "-c", "echo live > /live; sleep 300")
    eventually(lambda: "live" in members(cli("export", container).raw), what="the file is there")
    assert cli("exec", container, "cat", "/live").out == "live\n"
    assert "No such container" in cli("export", "nope-nope", code=1).err
    assert "invalid output path" in cli("export", "-o", str(tmp_path / "no/x"), container, code=1).err
    cli("export", "-o", str(tmp_path), container, code=1)
    assert os.listdir(tmp_path) == []


def test_many_commits_at_once(engine: Engine, busybox: str, name: Names, image: str) -> None:
    container = name()
    engine.docker("run", "--name", container, busybox, "sh", "-c", "seq 100000 > /numbers")
    failures: list[str] = []

    def work(number: int) -> None:
        answer = engine.api("POST", f"/commit?container={container}&repo={image}&tag={number}")
        if answer.status != 201:
            failures.append(answer.message)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    layers = {inspect(engine, f"{image}:{number}")["RootFS"]["Layers"][-1] for number in range(6)}
    assert len(layers) == 1
