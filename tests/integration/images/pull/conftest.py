"""A store that is pulled into, and its directories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.pulling import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _roots(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
