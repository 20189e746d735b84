"""Who uses an image, as it is asked by removals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from sampan.api.routes.images import users_of
from sampan.engine import Engine
from sampan.engine.held_images import HeldImages


def engine_with(containers: dict[str, Any], held: HeldImages) -> Engine:
    return cast("Engine", SimpleNamespace(containers=containers, build_images=held))


def test_containers_that_are_made_while_a_prune_works() -> None:
    containers: dict[str, Any] = {}
    users = users_of(engine_with(containers, HeldImages()))
    assert users("sha256:1") == []
    mounts = [SimpleNamespace(image_id=""), SimpleNamespace(image_id="sha256:2")]
    container = SimpleNamespace(image_id="sha256:1", mounts=mounts, state=SimpleNamespace(running=True))
    containers["c"] = SimpleNamespace(id="c", container=container)
    assert [users(f"sha256:{number}") for number in (1, 2, 3)] == [[("c", True)], [("c", True)], []]


def test_images_that_builds_come_to_need_while_a_prune_works() -> None:
    held = HeldImages()
    users = users_of(engine_with({}, held))
    assert users("sha256:1") == []
    held.hold("sha256:1")
    held.hold("sha256:1")
    held.release("sha256:1")
    assert (users("sha256:1"), users("sha256:2")) == ([("of a build", True)], [])
    held.release("sha256:1")
    assert users("sha256:1") == []
