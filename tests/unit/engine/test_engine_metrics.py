"""The engine's counters, and Prometheus' text of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from sampan.api.routes.metrics import _family, _histograms
from sampan.engine.metrics import Metrics, timed


@timed("start")
async def _work(core: SimpleNamespace, fails: bool) -> int:
    if fails:
        raise ValueError
    return 7


def test_only_what_succeeds_is_timed() -> None:
    core = SimpleNamespace(metrics=Metrics())
    assert asyncio.run(_work(core, False)) == 7
    with pytest.raises(ValueError):
        asyncio.run(_work(core, True))
    counted = core.metrics.container_actions["start"]
    assert sum(counted.counts) == 1 and counted.sum_s > 0


def test_buckets_are_cumulative_and_include_their_bound() -> None:
    histogram = Metrics().container_actions["create"]
    for seconds in (0.005, 0.006, 11.0):
        histogram.observe(seconds)
    lines = list(_histograms("x", "about", [({"action": "create"}, histogram)]))
    assert lines[:2] == ["# HELP x about", "# TYPE x histogram"]
    assert lines[2] == 'x_bucket{action="create",le="0.005"} 1'
    assert lines[3] == 'x_bucket{action="create",le="0.01"} 2'
    assert lines[-3:] == [
        'x_bucket{action="create",le="+Inf"} 3',
        f'x_sum{{action="create"}} {histogram.sum_s}',
        'x_count{action="create"} 3',
    ]


def test_labels_are_escaped() -> None:
    (*_, line) = _family("x", "gauge", "about", [({"os": 'a "b" \\ c\nd'}, 1)])
    assert line == 'x{os="a \\"b\\" \\\\ c\\nd"} 1'
