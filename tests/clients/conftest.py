"""What tests of networks and of names share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.engine import Engine

Names = Callable[[], str]


@pytest.fixture
def network(engine: Engine, name: Names) -> Iterator[Callable[..., str]]:
    """Makes networks; they are removed at the test's end, with the containers on them."""
    made: list[str] = []

    def make(*options: str) -> str:
        made.append(name())
        engine.docker("network", "create", *options, made[-1])
        return made[-1]

    yield make
    for one in made:
        for container in engine.api.containers():
            if one in container["NetworkSettings"]["Networks"]:
                engine.api.remove(container["Id"])
        engine.api("DELETE", f"/networks/{one}")


@pytest.fixture
def up(engine: Engine, name: Names, busybox: str) -> Callable[..., str]:
    """Starts a container that does nothing, with these options; its name."""

    def start(*options: str) -> str:
        one = name()
        engine.docker("run", "-d", "--name", one, "--stop-timeout", "0", *options, busybox, "sleep", "600")
        return one

    return start
