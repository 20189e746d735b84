"""A registry (Debian's docker-registry), a proxy before it where the network is to fail, and a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.proxy import Proxy
from support.pulling import Store
from support.registry import Registry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Proxy]:
    with Proxy(registry.port) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _roots(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
