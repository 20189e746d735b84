"""A step's files: a writable file system on top of an image's, filled by the builder, as a snapshot."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sampan.engine import Core
from sampan.images import Image
from sampan.storage import Snapshot


def changed(core: Core, top_layer: str | None, work: Callable[[int], None]) -> Snapshot:
    """What `work` changes on top of a layer; to be called in a thread.

    A crash leaves a file system that belongs to no container, which the next start takes away.

    Args:
        work: gets the descriptor of the root directory.

    Raises:
        OSError: of the file system, which may be full; nothing is left.
    """
    own_id = secrets.token_hex(32)
    core.build_roots.add(own_id)
    try:
        core.driver.create_container(own_id, top_layer)
        try:
            with opened(core.driver.mount(own_id)) as root:
                work(root)
        finally:
            core.driver.unmount(own_id)
        return core.driver.snapshot(own_id)
    finally:
        core.driver.remove_container(own_id)
        core.driver.purge_trash()
        core.build_roots.discard(own_id)


@contextmanager
def files_of(core: Core, image: Image) -> Iterator[int | None]:
    """The descriptor of an image's root directory, read-only; None for an image without layers."""
    layer = image.top_layer
    if layer is None:
        yield None
        return
    path = core.driver.mount_layers_ro(layer)
    try:
        with opened(path) as root:
            yield root
    finally:
        core.driver.unmount_layers_ro(layer)


@contextmanager
def opened(path: str) -> Iterator[int]:
    """The descriptor of a directory."""
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield root
    finally:
        os.close(root)
