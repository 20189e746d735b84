"""`prune` of containers, images and volumes: remove what nothing uses, after asking."""

from __future__ import annotations

import os
import sys

from sampan.cli.app import out
from sampan.cli.failures import CommandError, Exit
from sampan.cli.flags import Command, Flag
from sampan.cli.human import size
from sampan.cli.listing import filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def confirm(warning: str) -> None:
    """Ask, and end the command unless the answer is yes."""
    out(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    answer = b""
    while not answer.endswith(b"\n"):
        piece = os.read(0, 1)
        if not piece:
            break
        answer += piece
    if answer.strip().lower() != b"y":
        raise Exit(0)


def _reclaimed(count: int) -> None:
    out(f"Total reclaimed space: {size(count, 4)}\n")


def _containers(app: App, values: Values, arguments: list[str]) -> int:
    if not values.on("force"):
        confirm("This will remove all stopped containers.")
    answer = app.client.call("POST", "/containers/prune", {"filters": filters(values.items("filter"))})
    gone = answer.get("ContainersDeleted") or []
    if gone:
        out("Deleted Containers:\n" + "\n".join(gone) + "\n\n")
    _reclaimed(answer.get("SpaceReclaimed", 0))
    return 0


def _images(app: App, values: Values, arguments: list[str]) -> int:
    chosen = filters(values.items("filter"))
    chosen["dangling"] = {"false" if values.on("all") else "true": True}
    if not values.on("force"):
        confirm(
            "This will remove all images without at least one container associated to them."
            if values.on("all")
            else "This will remove all dangling images."
        )
    answer = app.client.call("POST", "/images/prune", {"filters": chosen})
    gone: list[dict[str, Any]] = answer.get("ImagesDeleted") or []
    if gone:
        out("Deleted Images:\n")
        for one in gone:
            out(f"untagged: {one['Untagged']}\n" if one.get("Untagged") else f"deleted: {one['Deleted']}\n")
        out("\n")
    _reclaimed(answer.get("SpaceReclaimed", 0))
    return 0


def _volumes(app: App, values: Values, arguments: list[str]) -> int:
    chosen = filters(values.items("filter"))
    if values.on("all"):
        if "all" in chosen:
            raise CommandError("conflicting options: cannot specify both --all and --filter all=1")
        chosen["all"] = {"true": True}
    if not values.on("force"):
        which = "" if values.on("all") else "anonymous "
        confirm(f"This will remove {which}local volumes not used by at least one container.")
    answer = app.client.call("POST", "/volumes/prune", {"filters": chosen})
    gone = answer.get("VolumesDeleted") or []
    if gone:
        out("Deleted Volumes:\n" + "\n".join(gone) + "\n\n")
    _reclaimed(answer.get("SpaceReclaimed", 0))
    return 0


_FILTER = Flag("filter", "filter", 'Remove only what meets the conditions (e.g. "until=24h")')
_FORCE = Flag("force", "bool", "Do not ask", "f")

COMMANDS = {
    "container prune": Command(
        "container prune",
        "[OPTIONS]",
        "Remove all stopped containers",
        (_FILTER, _FORCE),
        _containers,
        most=0,
    ),
    "image prune": Command(
        "image prune",
        "[OPTIONS]",
        "Remove unused images",
        (Flag("all", "bool", "Remove every image that no container uses", "a"), _FILTER, _FORCE),
        _images,
        most=0,
    ),
    "volume prune": Command(
        "volume prune",
        "[OPTIONS]",
        "Remove unused local volumes",
        (Flag("all", "bool", "Remove named volumes too", "a"), _FILTER, _FORCE),
        _volumes,
        most=0,
    ),
}
