"""`ps`: filters, limits, sizes and columns; `port`; what a paused container answers; renames."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.cli import Cli
from support.engine import Engine
from support.machine import alive, eventually, status_field

Names = Callable[[], str]


@pytest.fixture
def make(engine: Engine, busybox: str, name: Names) -> Callable[..., str]:
    """Makes a container with options and a command; its name. `-d` starts it."""

    def run(*options: str, command: tuple[str, ...] = ("sleep", "600")) -> str:
        one = name()
        verb = "run" if "-d" in options else "create"
        engine.docker(verb, "--name", one, *options, busybox, *command)
        return one

    return run


@pytest.fixture
def four(engine: Engine, make: Callable[..., str]) -> dict[str, str]:
    """One in each state, by its state, oldest first."""
    found = {"created": make("--expose", "80", "--expose", "53/udp", "-l", "a=b")}
    found["exited"] = make("-d", "-l", "a=c", command=("sh", "-c", "exit 3"))
    found["running"] = make("-d", "--network", "none", "--expose", "8000-8003", "-v", "/data")
    found["paused"] = make("-d")
    engine.docker("pause", found["paused"])
    eventually(lambda: engine.api.inspect(found["exited"])["State"]["Status"] == "exited")
    return found


def test_filters(cli: Cli, engine: Engine, four: dict[str, str], busybox: str) -> None:
    by_name = {name: state for state, name in four.items()}

    def shown(*filters: str, everything: bool = True) -> list[str]:
        words = [word for text in filters for word in ("--filter", text)]
        names = cli("ps", *(["-a"] if everything else []), *words, "--format", "{{.Names}}").lines
        return sorted(by_name[name] for name in names if name in by_name)

    everyone = sorted(four)
    assert shown() == everyone
    assert shown(everything=False) == ["paused", "running"]
    assert shown("status=exited", everything=False) == ["exited"]
    assert shown("status=paused", "status=created", everything=False) == ["created", "paused"]
    assert shown("exited=3") == ["exited"]
    assert shown("exited=3", everything=False) == []
    assert shown("exited=0") == []
    assert shown(f"before={four['running']}") == ["created", "exited"]
    assert shown(f"since={four['exited']}") == ["paused", "running"]
    assert shown(f"since={four['created']}", f"before={four['paused']}") == ["exited", "running"]
    assert shown("label=a") == ["created", "exited"]
    assert shown("label=a=c") == ["exited"]
    assert shown("label=a", "label=a=b") == ["created"]
    assert shown("expose=80") == shown("expose=53/udp") == shown("expose=70-90/tcp") == ["created"]
    assert shown("expose=8002") == ["running"]
    assert shown("expose=53") == shown("publish=80") == []
    assert shown("is-task=true") == [] and shown("is-task=false") == everyone
    assert shown("health=none") == everyone and shown("health=starting") == []
    assert shown("network=none") == ["running"]
    assert shown("network=bridge") == ["created", "exited", "paused"]
    assert shown("volume=/data") == ["running"] and shown("volume=/other") == []
    assert shown(f"name=^{four['paused']}$") == shown(f"name=^/{four['paused']}$") == ["paused"]
    assert shown("name=(") == []
    assert shown("name=no-such-name-at-all") == []
    whole = engine.api.inspect(four["exited"])["Id"]
    assert shown(f"id={whole[:9]}") == ["exited"]
    image = engine.api.inspect(four["exited"])["Image"]
    for text in (busybox, f"{busybox}:latest", image, image.removeprefix("sha256:")[:12]):
        assert shown(f"ancestor={text}") == everyone
    assert shown("ancestor=no-such-image") == []


def test_descendants_of_an_image(engine: Engine, make: Callable[..., str], name: Names) -> None:
    parent = make()
    engine.docker("commit", parent, "ps-test-child")
    child = name()
    engine.docker("create", "--name", child, "ps-test-child", "true")
    try:
        names = engine.docker("ps", "-a", "--filter", "ancestor=busybox", "--format", "{{.Names}}").lines
        assert {parent, child} <= set(names)
        of_child = engine.docker("ps", "-aq", "--no-trunc", "--filter", "ancestor=ps-test-child").lines
        assert of_child == [engine.api.inspect(child)["Id"]]
    finally:
        engine.api.remove(child)
        engine.docker("rmi", "ps-test-child")


@pytest.mark.parametrize(
    "text", ["status=nope", "exited=x", "expose=1:2", "publish=x", "is-task=maybe", "health=well", "foo=x"]
)
def test_bad_filters(cli: Cli, text: str) -> None:
    assert "Error response from daemon: " in cli("ps", "--filter", text, code=1).err


def test_last_ones(cli: Cli, engine: Engine, four: dict[str, str]) -> None:
    assert cli("ps", "-l", "--format", "{{.Names}}").lines == [four["paused"]]
    last = [four["paused"], four["running"], four["exited"]]
    assert cli("ps", "-n", "3", "--format", "{{.Names}}").lines == last
    assert cli("ps", "-n", "1", "-q", "--no-trunc").lines == [engine.api.inspect(four["paused"])["Id"]]


def test_sizes(cli: Cli, engine: Engine, make: Callable[..., str]) -> None:
    one = make("-d", command=("sh", "-c", "head -c 3000000 /dev/zero >/file; sleep 600"))
    eventually(lambda: engine.api.get(f"/containers/{one}/json?size=1")["SizeRw"] >= 3000000)
    text = cli("ps", "-s", "--filter", f"name={one}", "--format", "{{.Size}}").out
    assert text.startswith("3MB (virtual ")
    seen = next(found for found in engine.api.get("/containers/json?size=1") if found["Names"] == [f"/{one}"])
    assert seen["SizeRootFs"] > seen["SizeRw"] >= 3000000


def test_columns(cli: Cli, engine: Engine, make: Callable[..., str]) -> None:
    long = "echo a long line of words; sleep 600"
    one = make("-d", "--expose", "80", "-l", "k=v", command=("sh", "-c", long))
    row = json.loads(cli("ps", "--no-trunc", "--filter", f"name={one}", "--format", "json").out)
    assert row["Command"] == f"\"sh -c '{long}'\""
    assert (row["Ports"], row["Labels"], row["Networks"]) == ("80/tcp", "k=v", "bridge")
    assert row["ID"] == engine.api.inspect(one)["Id"]
    short = cli("ps", "--filter", f"name={one}", "--format", "{{.ID}} {{.Command}}").out
    assert short == f'{row["ID"][:12]} "sh -c \'echo a long …"\n'


def test_port(cli: Cli, make: Callable[..., str]) -> None:
    """Nothing is published yet; an exposed port is none."""
    one = make("-d", "--expose", "80")
    assert cli("port", one).out == ""
    assert f"No public port '80' published for {one}" in cli("port", one, "80", code=1).err
    assert "invalid port (x)" in cli("port", one, "x", code=1).err
    assert "No such container" in cli("port", "nobody-is-called-so", code=1).err


# --- paused ---


def test_what_a_paused_container_answers(cli: Cli, engine: Engine, make: Callable[..., str]) -> None:
    one, other = make("-d"), make()
    assert "is not running" in cli("pause", other, code=1).err
    assert "is not paused" in cli("unpause", one, code=1).err
    assert cli("pause", one).out.strip() == one
    assert "is already paused" in cli("pause", one, code=1).err
    assert "is paused, unpause the container before exec" in cli("exec", one, "true", code=1).err
    assert "unpause" in cli("start", one, code=1).err
    assert "paused" in cli("rm", one, code=1).err
    assert "(Paused)" in cli("ps", "--filter", f"name={one}", "--format", "{{.Status}}").out
    assert len(cli("top", one).lines) == 2
    cli("unpause", one)
    cli("exec", one, "true")


def test_a_paused_container_can_be_ended(cli: Cli, engine: Engine, make: Callable[..., str]) -> None:
    trap = ("sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.1; done")
    for verb, code in ((("kill",), 137), (("kill", "-s", "TERM"), 9), (("stop",), 9), (("rm", "-f"), None)):
        one = make("-d", command=trap)
        pid = engine.api.pid(one)
        time.sleep(0.3)  # until the trap is set
        engine.docker("pause", one)
        cli(*verb, one)
        eventually(lambda pid=pid: not alive(pid))  # type: ignore[misc]
        if code is not None:
            eventually(
                lambda one=one: engine.api.inspect(one)["State"]["Status"] == "exited"  # type: ignore[misc]
            )
            assert engine.api.inspect(one)["State"]["ExitCode"] == code


# --- kill ---


@pytest.mark.parametrize("text", ["USR1", "SIGUSR1", "usr1", "10", "RTMIN+3", "SIGRTMAX-2", "37", "RTMAX"])
def test_kill_by_any_signal(cli: Cli, engine: Engine, make: Callable[..., str], text: str) -> None:
    """A blocked signal stays pending, where the kernel shows it."""
    numbers = {"RTMIN+3": 37, "SIGRTMAX-2": 62, "37": 37, "RTMAX": 64}
    number = numbers.get(text, int(signal.SIGUSR1))
    one = make("-d", command=("sh", "-c", f"trap 'echo got' {number}; echo set; while :; do sleep 0.1; done"))
    eventually(lambda: "set" in engine.docker("logs", one).out)
    pid = engine.api.pid(one)
    assert int(status_field(pid, "SigCgt"), 16) >> (number - 1) & 1
    cli("kill", "--signal", text, one)
    eventually(lambda: "got" in engine.docker("logs", one).out)


def test_bad_signals(cli: Cli, make: Callable[..., str]) -> None:
    one = make("-d")
    for text in ("NOPE", "65", "-1", "RTMIN+99"):
        assert cli("kill", f"--signal={text}", one, code=1).err


# --- rename ---


def test_rename(cli: Cli, engine: Engine, make: Callable[..., str], name: Names) -> None:
    one, other, fresh = make(), make(), name()
    said = cli("rename", one, other, code=1).err
    assert f'The container name "/{other}" is already in use by container' in said
    assert "same name as its current name" in cli("rename", one, one, code=1).err
    assert "Invalid container name" in cli("rename", one, "no/such", code=1).err
    assert engine.api.inspect(one)["Name"] == f"/{one}"
    since = f"{time.time():.9f}"
    cli("rename", one, fresh)
    assert engine.api("GET", f"/containers/{one}/json").status == 404
    asked = ["--since", since, "--until", f"{time.time():.9f}", "--filter", "event=rename"]
    event: dict[str, Any] = json.loads(engine.docker("events", *asked, "--format", "json").out)
    assert event["Actor"]["Attributes"]["oldName"] == f"/{one}"
    assert event["Actor"]["Attributes"]["name"] == fresh
