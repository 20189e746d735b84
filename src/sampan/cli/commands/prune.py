"""`prune` of containers, images, networks, volumes, build cache, and of all, after asking."""

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


def _listed(title: str, names: list[str]) -> None:
    if names:
        out(f"{title}:\n" + "\n".join(names) + "\n\n")


def _prune(app: App, kind: str, chosen: dict[str, Any], **query: Any) -> int:
    """Ask the daemon to prune one kind of object, and show what went; the bytes that came back."""
    path, key, title = _KINDS[kind]
    answer = app.client.call("POST", path, {"filters": chosen, **query}) or {}
    gone = answer.get(key) or []
    if kind == "image":
        gone = [
            f"untagged: {one['Untagged']}" if one.get("Untagged") else f"deleted: {one['Deleted']}"
            for one in gone
        ]
    _listed(title, gone)
    return int(answer.get("SpaceReclaimed", 0))


# kind -> path of the API, member of the answer, title of the list
_KINDS = {
    "container": ("/containers/prune", "ContainersDeleted", "Deleted Containers"),
    "network": ("/networks/prune", "NetworksDeleted", "Deleted Networks"),
    "volume": ("/volumes/prune", "VolumesDeleted", "Deleted Volumes"),
    "image": ("/images/prune", "ImagesDeleted", "Deleted Images"),
    "build cache": ("/build/prune", "CachesDeleted", "Deleted build cache objects"),
}


def _chosen(app: App, values: Values) -> dict[str, Any]:
    """The filters given, and those of `pruneFilters` in docker's config.json that do not contradict them."""
    chosen: dict[str, Any] = filters(values.items("filter"))
    for text in app.config.get("pruneFilters") or ():
        name, equals, value = str(text).partition("=")
        opposite = name.removesuffix("!") if name.endswith("!") else f"{name}!"
        if equals and value not in chosen.get(opposite, {}):
            chosen.setdefault(name, {})[value] = True
    return chosen


def _containers(app: App, values: Values, arguments: list[str]) -> int:
    if not values.on("force"):
        confirm("This will remove all stopped containers.")
    _reclaimed(_prune(app, "container", _chosen(app, values)))
    return 0


def _images(app: App, values: Values, arguments: list[str]) -> int:
    chosen = _chosen(app, values)
    chosen["dangling"] = {"false" if values.on("all") else "true": True}
    if not values.on("force"):
        confirm(
            "This will remove all images without at least one container associated to them."
            if values.on("all")
            else "This will remove all dangling images."
        )
    _reclaimed(_prune(app, "image", chosen))
    return 0


def _networks(app: App, values: Values, arguments: list[str]) -> int:
    chosen = _chosen(app, values)
    if not values.on("force"):
        confirm("This will remove all custom networks not used by at least one container.")
    _prune(app, "network", chosen)
    return 0


def _volumes(app: App, values: Values, arguments: list[str]) -> int:
    chosen = _chosen(app, values)
    if values.on("all"):
        if "all" in chosen:
            raise CommandError("conflicting options: cannot specify both --all and --filter all=1")
        chosen["all"] = {"true": True}
    if not values.on("force"):
        which = "" if values.on("all") else "anonymous "
        confirm(f"This will remove {which}local volumes not used by at least one container.")
    _reclaimed(_prune(app, "volume", chosen))
    return 0


def _builder(app: App, values: Values, arguments: list[str]) -> int:
    chosen = _chosen(app, values)
    if not values.on("force"):
        confirm(f"This will remove all {'' if values.on('all') else 'dangling '}build cache.")
    query: dict[str, Any] = {"all": "1"} if values.on("all") else {}
    for flag, parameter in _SIZES.items():
        if values[flag]:
            query[parameter] = values[flag]
    _reclaimed(_prune(app, "build cache", chosen, **query))
    return 0


def _system(app: App, values: Values, arguments: list[str]) -> int:
    chosen = _chosen(app, values)
    everything, volumes = values.on("all"), values.on("volumes")
    if volumes and "until" in chosen:
        raise CommandError('ERROR: The "until" filter is not supported with "--volumes"')
    if not values.on("force"):
        confirm(_system_warning(everything, volumes, chosen))
    freed = _prune(app, "container", chosen)
    _prune(app, "network", chosen)
    if volumes:
        freed += _prune(app, "volume", chosen)
    freed += _prune(app, "image", {**chosen, "dangling": {"false" if everything else "true": True}})
    freed += _prune(app, "build cache", {name: chosen[name] for name in chosen if name == "until"})
    _reclaimed(freed)
    return 0


def _system_warning(everything: bool, volumes: bool, chosen: dict[str, dict[str, bool]]) -> str:
    parts = ["all stopped containers", "all networks not used by at least one container"]
    if volumes:
        parts.append("all anonymous volumes not used by at least one container")
    if everything:
        parts += ["all images without at least one container associated to them", "all build cache"]
    else:
        parts += ["all dangling images", "unused build cache"]
    text = "This will remove:\n" + "\n".join(f"  - {part}" for part in parts) + "\n"
    wanted = sorted(
        f"{name}={value}" for name in ("label", "label!", "until") for value in chosen.get(name, {})
    )
    if wanted:
        text += "\n  Items to be pruned will be filtered with:\n"
        text += "\n".join(f"  - {one}" for one in wanted) + "\n"
    return text


# flag -> query parameter.
_SIZES = {
    "keep-storage": "keep-storage",
    "max-used-space": "max-used-space",
    "min-free-space": "min-free-space",
    "reserved-space": "reserved-space",
}
_FILTER = Flag("filter", "filter", 'Remove only what meets the conditions (e.g. "until=24h")')
_FORCE = Flag("force", "bool", "Do not ask", "f")

COMMANDS = {
    "builder prune": Command(
        "builder prune",
        "[OPTIONS]",
        "Remove build cache",
        (
            Flag("all", "bool", "Remove all unused build cache", "a"),
            _FILTER,
            _FORCE,
            Flag("keep-storage", "bytes", "Disk to leave to the cache; the same as --reserved-space"),
            Flag("max-used-space", "bytes", "The most disk that the cache may keep"),
            Flag("min-free-space", "bytes", "Disk that shall be free afterwards"),
            Flag("reserved-space", "bytes", "Disk to leave to the cache whatever else is said"),
        ),
        _builder,
        most=0,
    ),
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
    "network prune": Command(
        "network prune",
        "[OPTIONS]",
        "Remove all unused networks",
        (_FILTER, _FORCE),
        _networks,
        most=0,
    ),
    "system prune": Command(
        "system prune",
        "[OPTIONS]",
        "Remove unused data",
        (
            Flag("all", "bool", "Remove every image that no container uses", "a"),
            _FILTER,
            _FORCE,
            Flag("volumes", "bool", "Remove anonymous volumes too"),
        ),
        _system,
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
