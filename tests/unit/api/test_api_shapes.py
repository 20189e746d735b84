"""Times, durations and detach keys as Docker spells them."""

from __future__ import annotations

import pytest

from sampan.api.routes.detach_keys import parse_detach_keys
from sampan.api.shapes.times import rfc3339
from sampan.durations import human_duration
from sampan.errors import InvalidParameter


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"),
        (119, "About a minute"), (120, "2 minutes"), (3599, "59 minutes"), (3600, "About an hour"),
        (5400, "2 hours"), (47 * 3600, "47 hours"), (48 * 3600, "2 days"), (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"), (61 * 86400, "2 months"), (800 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_times() -> None:
    assert rfc3339(0) == "0001-01-01T00:00:00Z"
    assert rfc3339(1_700_000_000_120_000_000) == "2023-11-14T22:13:20.12Z"
    assert rfc3339(1_700_000_000_000_000_000) == "2023-11-14T22:13:20Z"


def test_detach_keys() -> None:
    assert parse_detach_keys("") == b"\x10\x11"
    assert parse_detach_keys("ctrl-a,x") == b"\x01x"
    assert parse_detach_keys("ctrl-[,ctrl-@") == b"\x1b\x00"
    for bad in ("ctrl-", "ctrl-1", "abc", "a,,b"):
        with pytest.raises(InvalidParameter, match="Invalid detach keys"):
            parse_detach_keys(bad)
