"""What a volume is, how Docker shows it, and how much it holds."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from dataclasses import field
from pathlib import Path
from typing import Any

from sampan.dataclasses import dataclass
from sampan.linux import trees
from sampan.volumes.options import is_mount

ANONYMOUS_LABEL = "com.docker.volume.anonymous"


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume as Docker shows it; `created_ns` is nanoseconds since 1970, `options` are the driver's."""

    name: str
    mountpoint: Path
    created_ns: int
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    driver: str = "local"
    scope: str = "local"

    @property
    def anonymous(self) -> bool:
        """Whether it was made for a container that asked for a volume without a name."""
        return ANONYMOUS_LABEL in self.labels


def describe(volume: Volume) -> dict[str, Any]:
    """The `Volume` object of Docker's API."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(volume.created_ns // 1_000_000_000))
    return {
        "CreatedAt": stamp,
        "Driver": volume.driver,
        "Labels": volume.labels or None,
        "Mountpoint": str(volume.mountpoint),
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": volume.scope,
    }


def disk_bytes(volume: Volume) -> int:
    """What a volume takes of the engine's disk: nothing where its files lie elsewhere."""
    return 0 if is_mount(volume.options) else size_bytes(volume.mountpoint)


def size_bytes(directory: Path) -> int:
    """The sum of the sizes of the files under a directory; each counts once, links are not followed."""
    sizes: dict[tuple[int, int], int] = {}
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        for _, entries, _ in trees.walk(top):
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if not stat.S_ISDIR(status.st_mode):
                        sizes[status.st_dev, status.st_ino] = status.st_size
    finally:
        os.close(top)
    return sum(sizes.values())
