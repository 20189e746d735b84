"""`run --explain`: the steps of a start as the engine took them; and nothing of it where nobody asked."""

from __future__ import annotations

import json
import re

from support.engine import Engine
from support.machine import eventually

STEPS = [
    "container found",
    "layers mounted",
    "network connected",
    "hosts, hostname and resolv.conf written",
    "config.json written",
    "launcher reached",
    "configuration checked",
    "monitor forked",
    "cgroup made",
    "process cloned",
    "process adopted",
    "program executed",
    "streams connected",
    "daemon told",
    "written down",
]


def test_the_steps_in_their_order_with_their_times(engine: Engine) -> None:
    done = engine.sampan("run", "--rm", "--explain", engine.busybox, "cat", "/proc/1/cgroup")
    assert done.out and "container found" not in done.out
    lines = [re.match(r"\s*([\d.]+)\s+([\d.]+)  (\S.*)", line) for line in done.err.splitlines()]
    found = [(float(one[1]), float(one[2]), one[3]) for one in lines if one is not None]
    assert [name for *_, name in found] and all(
        name.startswith(step) for (_, _, name), step in zip(found, STEPS, strict=True)
    )
    ends = [at for at, *_ in found]
    assert ends == sorted(ends)
    assert abs(sum(took for _, took, _ in found) - ends[-1]) < 0.2
    told = {step: name.removeprefix(step).strip() for (_, _, name), step in zip(found, STEPS, strict=True)}
    assert told["layers mounted"].startswith("overlay, 2 read-only")
    assert re.search(r"bridge \d+\.\d+\.\d+\.\d+/\d+", told["network connected"])
    assert "new namespaces: " in told["process cloned"] and "network" in told["process cloned"]
    assert told["program executed"] == "cat /proc/1/cgroup"
    assert any(told["cgroup made"] in line for line in done.out.splitlines()) or "0::/" in done.out


def test_in_the_background_and_of_other_kinds(engine: Engine) -> None:
    done = engine.sampan("run", "-d", "--rm", "--explain", "--network", "none", engine.busybox, "sleep", "0")
    assert re.fullmatch(r"[0-9a-f]{64}\n", done.out)
    assert "network connected" in done.err and "gateway" not in done.err
    eventually(lambda: engine.api("GET", f"/containers/{done.out.strip()}/json").status == 404)


def test_only_who_asks_is_told(engine: Engine) -> None:
    for query, told in (("", False), ("?explain=1", True)):
        body = {"Image": engine.busybox, "Cmd": ["true"], "HostConfig": {"AutoRemove": True}}
        made = engine.api("POST", "/v1.51/containers/create", body).json()
        answer = engine.api("POST", f"/v1.51/containers/{made['Id']}/start{query}")
        assert answer.status == 204
        assert ("sampan-explanation" in answer.headers) == told
        if told:
            assert [step[0] for step in json.loads(answer.headers["sampan-explanation"])] == STEPS
        eventually(lambda made=made: engine.api("GET", f"/containers/{made['Id']}/json").status == 404)
