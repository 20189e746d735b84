"""Every field of `POST /containers/create`, by `support.fields`: in effect, or refused by name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import needs
from support.engine import TOKEN, Daemon
from support.fields import FIELDS, Cgroup, Elsewhere, Field, Inside, Passed, Refused, Shown, Warned
from support.machine import cgroup_file, on_v2

Names = Callable[[], str]


def disk() -> tuple[str, str]:
    """A block device and its numbers."""
    for entry in sorted(Path("/sys/block").iterdir()):
        if Path("/dev", entry.name).exists():
            return f"/dev/{entry.name}", (entry / "dev").read_text().strip()
    pytest.skip("needs a block device")


def merged(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merged(into[key], value)
        else:
            into[key] = value


def place(body: dict[str, Any], path: str, value: Any) -> None:
    """Set a member by its path; `[]` is the first of a list, `*` the network that a container has anyway."""
    at: Any = body
    *steps, last = path.split(".")
    for step in steps:
        name = {"*": "bridge"}.get(step.removesuffix("[]"), step.removesuffix("[]"))
        at = at.setdefault(name, [{}] if step.endswith("[]") else {})
        if step.endswith("[]"):
            at = at[0]
    at[last] = value


def shown_at(shape: dict[str, Any], path: str) -> Any:
    """What inspect shows of a member."""
    if path.startswith("NetworkingConfig"):
        return shape["NetworkSettings"]["Networks"]["bridge"][path.rpartition(".")[2]]
    at: Any = shape if path.startswith("HostConfig") else shape["Config"]
    for step in path.split("."):
        at = at[step.removesuffix("[]")]
        if step.endswith("[]"):
            at = at[0]
    return at


def filled(value: Any, words: dict[str, Callable[[], str]]) -> Any:
    """The value with what only this machine knows."""
    if isinstance(value, str):
        return re.sub("|".join(words), lambda found: words[found[0]](), value)
    if isinstance(value, list):
        return [filled(item, words) for item in value]
    if isinstance(value, dict):
        return {key: filled(item, words) for key, item in value.items()}
    return value


@contextmanager
def realtime_for_all(field: Field) -> Iterator[None]:
    """Real-time scheduling has to be granted to the cgroup above first, as dockerd's users have to do too."""
    above = Path("/sys/fs/cgroup/cpu", TOKEN, "cpu.rt_runtime_us")
    if "CpuRealtimeRuntime" in field.path:
        above.parent.mkdir(exist_ok=True)
        above.write_text("5000")
    yield


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.path)
def test_field(daemon: Daemon, busybox: str, name: Names, tmp_path: Path, field: Field) -> None:
    api, outcome = daemon.api, field.outcome
    if isinstance(outcome, Elsewhere):
        file, _, function = outcome.test.partition("::")
        assert f"def {function}(" in (Path(__file__).parents[1] / file).read_text()
    if isinstance(outcome, Cgroup) and outcome.controller not in needs.controllers():
        pytest.skip(f"needs the cgroup controller {outcome.controller}")

    def other() -> str:
        one = name()
        api("POST", f"/containers/create?name={one}", {"Image": busybox, "Volumes": {"/other": {}}})
        return one

    words: dict[str, Callable[[], str]] = {
        "DISK": lambda: disk()[0],
        "NUMBERS": lambda: disk()[1],
        "PARENT": lambda: f"{TOKEN}/parent",
        "OTHER": other,
        "MISSING": lambda: str(tmp_path / "missing"),
        "UTS": lambda: os.readlink("/proc/self/ns/uts"),
        "USER": lambda: os.readlink("/proc/self/ns/user"),
    }
    script = outcome.script if isinstance(outcome, Inside) else "exec sleep 60"
    body: dict[str, Any] = {"Image": busybox, "Cmd": ["sh", "-c", filled(script, words)]}
    merged(body, filled(field.beside or {}, words))
    value = filled(field.value, words)
    place(body, field.path, value)
    one = name()
    answer = api("POST", f"/containers/create?name={one}", body)
    if isinstance(outcome, Refused):
        assert (answer.status, answer.message) == (outcome.status, outcome.words)
        return
    if field.path == "HostConfig.StorageOpt" and answer.status == 400:
        assert "project quotas" in answer.message
        pytest.skip(answer.message)
    if "CpuRealtime" in field.path and answer.status == 400:
        assert answer.message == "kernel does not support CPU real-time scheduler"
        pytest.skip(answer.message)
    assert answer.status == 201, answer.body
    warnings = answer.json()["Warnings"]
    if isinstance(outcome, Warned):
        assert warnings == [outcome.words]
        return
    if isinstance(outcome, Passed):
        assert warnings == []
        return
    if isinstance(outcome, (Shown, Elsewhere)):
        shown = shown_at(api.inspect(one), field.path)
        shown = {key: shown[key] for key in value} if isinstance(value, dict) else shown
        assert shown == value
        return
    if isinstance(outcome, Cgroup) and warnings and warnings[0].endswith("discarded."):
        pytest.skip(f"this kernel cannot: {warnings[0]}")
    with realtime_for_all(field):
        started = api("POST", f"/containers/{one}/start")
    assert started.status == 204, started.body
    if isinstance(outcome, Inside):
        assert api("POST", f"/containers/{one}/wait").json()["StatusCode"] in (0, 1)
        logs = api("GET", f"/containers/{one}/logs?stdout=1").body
        if field.path == "HostConfig.CgroupParent":
            api.remove(one)
            for parent in Path("/sys/fs/cgroup").glob(f"**/{TOKEN}/parent"):
                parent.rmdir()
        if not body.get("Tty"):
            logs = re.sub(rb"[\x01\x02]\0\0\0.{4}", b"", logs, flags=re.DOTALL)
        assert logs.decode().replace("\r", "").rstrip("\n") == filled(outcome.expected, words)
        return
    pid = api.pid(one)
    file, expected = outcome.v2 if on_v2(pid, outcome.controller) else outcome.v1
    if not file:
        pytest.fail("cgroup v2 has no such limit: it must have been discarded with a warning")
    text = cgroup_file(pid, outcome.controller, outcome.v1[0], outcome.v2[0])
    if "DISK" in expected:
        expected = expected.replace("DISK", disk()[1])
    assert expected in text.splitlines()


def test_labels_of_a_volume(daemon: Daemon, busybox: str, name: Names) -> None:
    volume = name()
    mount = {"Type": "volume", "Source": volume, "Target": "/m", "VolumeOptions": {"Labels": {"a": "b"}}}
    body = {"Image": busybox, "HostConfig": {"Mounts": [mount]}}
    assert daemon.api("POST", f"/containers/create?name={volume}", body).status == 201
    try:
        assert daemon.api.get(f"/volumes/{volume}")["Labels"] == {"a": "b"}
    finally:
        daemon.api.remove(volume)
        assert daemon.api("DELETE", f"/volumes/{volume}").status == 204


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"HostConfig": []}, "HostConfig: expected an object"),
        ({"HostConfig": {"Memory": "1"}}, "HostConfig.Memory: expected a number, not a text"),
        ({"NetworkingConfig": 7}, "NetworkingConfig: expected an object"),
        ({"NetworkingConfig": {"EndpointsConfig": {"bridge": 7}}}, "bridge: expected an object"),
        ({"NetworkingConfig": {"New": 7}}, "NetworkingConfig.New: unknown field"),
        ({"New": 7}, "New: unknown field"),
        ({"HostConfig": {"New": 7}}, "HostConfig.New: unknown field"),
    ],
)
def test_what_no_field_takes_is_refused(
    daemon: Daemon, busybox: str, body: dict[str, Any], words: str
) -> None:
    answer = daemon.api("POST", "/containers/create", {"Image": busybox, "Cmd": ["true"], **body})
    assert (answer.status, answer.message) == (400, words)
