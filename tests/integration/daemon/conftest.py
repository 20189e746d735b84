"""What the tests of the daemon share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.engine import Daemon


@pytest.fixture
def own(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon for one test alone."""
    made = make_daemon().start()
    assert made.busybox
    yield made
    made.end()
