"""What stands in the tables: columns, and for each object a key and its cells."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sampan.cli.commands import images, ps
from sampan.cli.human import ellipsis, short_id
from sampan.dataclasses import dataclass

# What an image or a container says may hold anything; nothing of it may reach the terminal as a command.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Text without control characters and escape sequences (ECMA-48)."""
    return _CONTROL.sub("", _SEQUENCE.sub("", text)).replace("\t", "    ")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    Attributes:
        key: the object's id or name, which stays the same.
        name: what to call it when asking back.
        state: of a container.
    """

    key: str
    name: str
    cells: tuple[str, ...]
    state: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """How one kind is shown."""

    title: str
    columns: tuple[str, ...]
    rows: Callable[[list[dict[str, Any]]], list[Row]]


_CONTAINER = ps.fields(True)
_IMAGE = images.fields(True)
_MARKS = {"running": "●", "paused": "‖", "restarting": "↻", "created": "○", "exited": "○", "dead": "✗"}


def _containers(found: list[dict[str, Any]]) -> list[Row]:
    rows = []
    for one in found:
        state = str(one.get("State", ""))
        named = ("Names", "Image", "Command", "Status", "Ports", "ID")
        cells = [clean(str(_CONTAINER[name].value(one))) for name in named]
        rows.append(Row(one["Id"], cells[0], (_MARKS.get(state, "?"), *cells), state))
    return rows


def _images(found: list[dict[str, Any]]) -> list[Row]:
    rows = []
    for one in images.rows(found, False):
        named = ("Repository", "Tag", "ID", "CreatedSince", "Size")
        cells = [clean(str(_IMAGE[name].value(one))) for name in named]
        tagged = "<none>" not in cells[:2]
        key = f"{cells[0]}:{cells[1]}" if tagged else one["Id"]
        rows.append(Row(key, key if tagged else cells[2], tuple(cells)))
    return rows


def _volumes(found: list[dict[str, Any]]) -> list[Row]:
    return [
        Row(one["Name"], clean(one["Name"]), tuple(clean(str(one.get(name, ""))) for name in
            ("Name", "Driver", "Mountpoint")))
        for one in sorted(found, key=lambda one: str(one["Name"]))
    ]  # fmt: skip


def _networks(found: list[dict[str, Any]]) -> list[Row]:
    rows = []
    for one in sorted(found, key=lambda one: str(one["Name"])):
        subnets = [str(part.get("Subnet", "")) for part in (one.get("IPAM") or {}).get("Config") or ()]
        cells = (one["Name"], one.get("Driver", ""), one.get("Scope", ""), ", ".join(subnets))
        rows.append(Row(one["Id"], clean(one["Name"]), (*map(clean, map(str, cells)), short_id(one["Id"]))))
    return rows


TABLES = {
    "containers": Table("Containers", ("", "NAME", "IMAGE", "COMMAND", "STATUS", "PORTS", "ID"), _containers),
    "images": Table("Images", ("REPOSITORY", "TAG", "ID", "CREATED", "SIZE"), _images),
    "volumes": Table("Volumes", ("NAME", "DRIVER", "MOUNTPOINT"), _volumes),
    "networks": Table("Networks", ("NAME", "DRIVER", "SCOPE", "SUBNET", "ID"), _networks),
}


def short(text: str, most: int = 60) -> str:
    """A text for a title."""
    return ellipsis(clean(text), most)
