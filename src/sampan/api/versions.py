"""What older versions of the Engine API say differently, beside what `shapes` tell of images and `system`.

Docker's history of its API (moby, `docs/api/version-history.md`) is the specification. `CHANGES` is for
people: docs/compatibility.md shows it.
"""

from __future__ import annotations

from typing import Any

from sampan.engine.model import Container, HostConfig
from sampan.http import ApiVersion
from sampan.http.response import MULTIPLEXED_STREAM, RAW_STREAM
from sampan.network import PREDEFINED

# The first version that no longer has the difference, and the difference.
CHANGES: tuple[tuple[str, str], ...] = (
    ("1.25", "`SecurityOptions` of `/info` are plain names (`seccomp`), and it has an `ExecutionDriver`"),
    ("1.30", "`wait` knows no `condition` and answers when the container does not run"),
    ("1.40", "the default of `IpcMode` is `shareable`"),
    ("1.41", "the default of `CgroupnsMode` is `host`; `platform` of `create` is not looked at"),
    ("1.41", "`GET /images/json` takes `filter`, a pattern for names"),
    ("1.42", "streams without a terminal are said to be `raw-stream`, though multiplexed"),
    (
        "1.42",
        "`POST /volumes/prune` takes named volumes too; `/info` has `KernelMemory` and `KernelMemoryTCP`",
    ),
    ("1.43", "images without a name have the tag `<none>:<none>` and the digest `<none>@<none>`"),
    ("1.44", "images have `VirtualSize`, and `Created` also when it is unknown"),
    ("1.44", "`create` takes one network alone"),
    ("1.45", "images have `Container` and `ContainerConfig`"),
    ("1.45", "`Aliases` in networks of the user's have the container's short id too"),
    ("1.49", "commits in `/info` have `Expected`"),
    ("1.50", "`Config` of images has members that an image cannot have, all empty"),
    ("1.50", "`/info` has `BridgeNfIptables` and `BridgeNfIp6tables`"),
)


def defaults(version: ApiVersion, host_config: HostConfig) -> None:
    """Fill in what a client of that version expects where it says nothing."""
    if version < (1, 40):
        host_config.ipc_mode = host_config.ipc_mode or "shareable"
    if version < (1, 41):
        host_config.cgroupns_mode = host_config.cgroupns_mode or "host"


def aliases(version: ApiVersion, container: Container, shape: dict[str, Any]) -> None:
    """Put short id and host name among the aliases of an inspected container, for clients that look there."""
    if version >= (1, 45):
        return
    for name, endpoint in shape["NetworkSettings"]["Networks"].items():
        if name not in PREDEFINED:
            known = [*(endpoint["Aliases"] or ()), container.id[:12], container.config.hostname]
            endpoint["Aliases"] = list(dict.fromkeys(known))


def stream_type(version: ApiVersion, tty: bool) -> str:
    """What output is announced as: before 1.42 never as the frames that it has without a terminal."""
    return MULTIPLEXED_STREAM if not tty and version >= (1, 42) else RAW_STREAM
