"""`sampan.runtime.exec_steps`: what is kept of one exec's list for the next is right for that."""

from __future__ import annotations

import dataclasses
import errno
import resource
from collections.abc import Iterator
from typing import Any

import pytest

from sampan.runtime import exec_steps
from sampan.runtime.bundle import Capabilities, ProcessSpec
from sampan.runtime.exec_steps import Way, first_steps, second_steps
from sampan.runtime.targets import Target
from sampan.runtime.told import Hands

HANDS = Hands(10, 11, 12, 13, (14, 15), (0, 16, 17), (1, 2))
WHERE = Target(["mount", "pid"], "/c", (bytes(64), 0), (14, 15))
WAY = Way("x86_64", HANDS, WHERE, "a" * 64, True, False, ("/t", "/u"))
FEW = Capabilities(bounding=["CAP_KILL"], effective=["CAP_KILL"], permitted=["CAP_KILL"])
SHELL = ProcessSpec(
    ["sh"], "/", ["PATH=/bin"], capabilities=FEW, oom_score_adj=300,
    rlimits=[{"type": "RLIMIT_NPROC", "soft": 5, "hard": 5}],
)  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    _forget()
    yield
    _forget()


def _forget() -> None:
    exec_steps._first = exec_steps._second = None


def _second(way: Way, wanted: ProcessSpec, size: tuple[int, int] | None = None) -> tuple[bytes, set[int]]:
    steps = second_steps(way, wanted, size)
    return steps.finish(), set(steps.meanings)


def _first(way: Way) -> tuple[bytes, set[int]]:
    steps = first_steps(way)
    return steps.finish(), set(steps.meanings)


@pytest.mark.parametrize(
    "change",
    [
        {"args": ["/bin/ls", "-l"]}, {"env": ["PATH=/sbin:/bin", "A=1"]}, {"cwd": "/tmp"}, {"terminal": True},
        {"uid": 5}, {"gid": 5}, {"additional_gids": [5]}, {"umask": 0o77}, {"capabilities": None},
        {"capabilities": dataclasses.replace(FEW, bounding=[])}, {"rlimits": []}, {"no_new_privileges": True},
        {"oom_score_adj": None}, {"apparmor_profile": "p"}, {"terminal": True, "console_size": (3, 4)},
    ],
)  # fmt: skip
def test_another_program_gets_its_own_list(change: dict[str, Any]) -> None:
    other = dataclasses.replace(SHELL, **change)
    fresh = _second(WAY, other)
    _forget()
    before = _second(WAY, SHELL)
    assert _second(WAY, other) == fresh != before
    assert _second(WAY, SHELL) == before


def test_every_field_of_a_program_is_part_of_what_is_compared() -> None:
    names = {field.name for field in dataclasses.fields(ProcessSpec)} - {"args", "env"}
    assert len(exec_steps._KIND(SHELL)) == len(names)


@pytest.mark.parametrize(
    "change",
    [
        {"machine": "aarch64"}, {"guarded": False}, {"own_view": True},
        {"hands": dataclasses.replace(HANDS, channel=20)}, {"hands": dataclasses.replace(HANDS, report=-1)},
        {"where": dataclasses.replace(WHERE, filters=(bytes(72), 1))},
        {"where": dataclasses.replace(WHERE, namespaces=["mount", "pid", "cgroup", "user"])},
    ],
)  # fmt: skip
def test_another_way_gets_its_own_list(change: dict[str, Any]) -> None:
    other = dataclasses.replace(WAY, **change)
    fresh = _first(other), _second(other, SHELL)
    _forget()
    before = _first(WAY), _second(WAY, SHELL)
    assert (_first(other), _second(other, SHELL)) == fresh != before


def test_the_size_of_a_terminal_is_its_own() -> None:
    wanted = dataclasses.replace(SHELL, terminal=True)
    before = _second(WAY, wanted, (24, 80))
    assert _second(WAY, wanted, (25, 80)) != before == _second(WAY, wanted, (24, 80))


def test_what_this_process_has_itself_is_looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _second(WAY, SHELL)
    with monkeypatch.context() as changed:
        changed.setattr(exec_steps, "_present_score", lambda: 300)
        raised = _second(WAY, SHELL)
        assert raised != before
    with monkeypatch.context() as changed:
        changed.setattr(resource, "getrlimit", lambda _: (3, 3))
        assert _second(WAY, SHELL) != before
    assert _second(WAY, SHELL) == before


def test_each_exec_has_a_keyring_of_its_own_name() -> None:
    before, _ = _first(WAY)
    other = dataclasses.replace(WAY, session="b" * 64)
    after, _ = _first(other)
    _forget()
    assert after == _first(other)[0] == before.replace(b"a" * 64, b"b" * 64) != before
    assert b"_ses.c\0" in _first(dataclasses.replace(WAY, session="c"))[0]


def test_a_user_that_the_namespace_lacks_is_named() -> None:
    wanted = dataclasses.replace(SHELL, uid=70000, gid=7)
    steps = second_steps(WAY, wanted, None)
    said = {(found := means(errno.EINVAL)).stage: found.text for means in steps.meanings.values()}
    assert said["user"].startswith("user 70000:7 does not exist in the user namespace")
    assert {means(errno.EPERM).text for means in steps.meanings.values()} >= {
        "setresuid: Operation not permitted",
        "setresgid: Operation not permitted",
    }
