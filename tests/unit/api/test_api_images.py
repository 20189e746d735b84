"""Who uses an image, as it is asked by removals."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from sampan.api.routes.images import users_of
from sampan.engine import Engine
from sampan.engine.held_images import HeldImages


def test_images_that_builds_come_to_need_while_a_prune_works() -> None:
    held = HeldImages()
    users = users_of(cast("Engine", SimpleNamespace(containers={}, build_images=held)))
    assert users("sha256:1") == []
    held.hold("sha256:1")
    held.hold("sha256:1")
    held.release("sha256:1")
    assert (users("sha256:1"), users("sha256:2")) == ([("of a build", True)], [])
    held.release("sha256:1")
    assert users("sha256:1") == []
