"""Docker's rules for the values of filters, and its words for wrong ones."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sampan.api import filters
from sampan.api.routes.events import _wanted
from sampan.engine import Core, Event
from sampan.errors import Conflict, InvalidParameter


def test_booleans() -> None:
    assert filters.boolean({}, "x", True) is True
    assert filters.boolean({"x": ["1"]}, "x", False) is True
    assert filters.boolean({"x": ["false", "0"]}, "x", True) is False
    for values, said in (
        (["yes"], "'x=[yes]'"),
        (["1", "0"], "'x=[1 0]'"),
        ([], "'x'"),
        (["True"], "'x=[True]'"),
    ):
        with pytest.raises(InvalidParameter) as caught:
            filters.boolean({"x": values}, "x", False)
        assert caught.value.message == f"invalid filter {said}"


@pytest.mark.parametrize(
    ("given", "labels", "kept"),
    [
        ({}, {}, True),
        ({"label": ["a"]}, {"a": "1"}, True),
        ({"label": ["a=1", "b"]}, {"a": "1"}, False),
        ({"label": ["a="]}, {"a": "1"}, False),
        ({"label!": ["a"]}, {}, True),
        ({"label!": ["a"]}, {"a": "1"}, False),
        ({"label!": ["a", "b"]}, {"a": "1"}, True),  # only what has all of them stays
        ({"label!": ["a=2"]}, {"a": "1"}, True),
        ({"label": ["a"], "label!": ["b"]}, {"a": "", "b": ""}, False),
    ],
)
def test_labels(given: dict[str, list[str]], labels: dict[str, str], kept: bool) -> None:
    assert filters.keeps_labels(given, labels) is kept


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("1700000000", 1_700_000_000 * 10**9),
        ("1700000000.5", 1_700_000_000_500_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000 * 10**9),
        ("2023-11-14T23:13:20.000000001+01:00", 1_700_000_000_000_000_001),
        ("2023-11-14", 1_699_920_000 * 10**9),
    ],
)
def test_until_a_time(text: str, expected_ns: int) -> None:
    assert filters.until_ns({"until": [text]}) == expected_ns


@pytest.mark.parametrize(("text", "age_s"), [("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("-10s", -10)])
def test_until_an_age(text: str, age_s: float) -> None:
    found = filters.until_ns({"until": [text]})
    assert found is not None
    assert time.time_ns() - found == pytest.approx(age_s * 1e9, abs=1e9)


def test_until_refused() -> None:
    assert filters.until_ns({}) is None
    for values, said in (
        (["1h", "2h"], "more than one until filter specified"),
        (["soon"], 'failed to parse value as time or duration: "soon"'),
        ([""], 'failed to parse value as time or duration: ""'),
    ):
        with pytest.raises(InvalidParameter, match=said):
            filters.until_ns({"until": values})


def test_texts_match_whole_or_as_expressions() -> None:
    assert filters.matches(["web"], "my-web-1")
    assert filters.matches(["^web$", "^my"], "my-web-1")
    assert not filters.matches(["^web"], "my-web-1")
    assert filters.matches(["a(b"], "a(b") and not filters.matches(["a("], "a(b")


def test_one_prune_at_a_time() -> None:
    core = cast(Core, SimpleNamespace(pruning=set()))
    with filters.one_prune(core, "images"):
        with filters.one_prune(core, "volumes"):
            pass
        again = pytest.raises(Conflict, match="a prune operation is already running")
        with again, filters.one_prune(core, "images"):
            pass
    with filters.one_prune(core, "images"):
        pass


WEB = Event("container", "start", "abc123", {"name": "web", "image": "shop/app:2", "tier": "front"}, 1)
EXEC = Event("container", "exec_create: sh -c x", "abc123", {"name": "web", "image": "shop/app:2"}, 2)
PULL = Event("image", "pull", "shop/app:2", {"name": "shop/app"}, 3)
RELOAD = Event("daemon", "reload", "AAAA", {"name": "host"}, 4)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, [WEB, EXEC, PULL, RELOAD]),
        ({"type": ["image", "daemon"]}, [PULL, RELOAD]),
        ({"event": ["start", "pull"]}, [WEB, PULL]),
        ({"event": ["star"]}, []),
        ({"event": ["exec_create"]}, [EXEC]),
        ({"container": ["abc"]}, [WEB, EXEC]),
        ({"container": ["we"]}, [WEB, EXEC]),
        ({"container": ["other", "web"], "event": ["start"]}, [WEB]),
        ({"image": ["shop/app"]}, [WEB, EXEC, PULL]),
        ({"image": ["shop/app:2"], "type": ["image"]}, [PULL]),
        ({"image": ["shop"]}, []),
        ({"label": ["tier"]}, [WEB]),
        ({"label": ["tier=back"]}, []),
        ({"scope": ["swarm"]}, []),
        ({"daemon": ["host"]}, [RELOAD]),
        ({"node": ["x"]}, []),
    ],
)
def test_events(given: dict[str, list[str]], kept: list[Event]) -> None:
    test: Any = _wanted(given)
    assert [event for event in (WEB, EXEC, PULL, RELOAD) if test(event)] == kept
