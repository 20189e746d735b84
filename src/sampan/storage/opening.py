"""Choosing the storage driver: the one that the data root was used with, or the first that works."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
from sampan.storage import btrfs, fuse_overlayfs, overlay2, vfs
from sampan.storage.driver import Driver
from sampan.storage.errors import DriverError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kind:
    open: Callable[[Path], Driver]
    probe: Callable[[Path], None] | None  # raises `DriverError`


_DRIVERS = {  # best first
    "overlay2": _Kind(overlay2.Overlay2, overlay2.probe),
    "fuse-overlayfs": _Kind(fuse_overlayfs.FuseOverlayfs, fuse_overlayfs.probe),
    "btrfs": _Kind(btrfs.Btrfs, btrfs.probe),
    "vfs": _Kind(vfs.Vfs, None),
}


def open_driver(name: str | None, root: Path, options: Sequence[str] = ()) -> Driver:
    """The driver called `name`, or the best one that works, with its directory in `root`.

    As with Docker, a data root stays with the driver that it was used with, even if that does not work any
    more, so that no image disappears without a word; `name` overrides it.

    Args:
        name: one of the drivers' names, or None to choose.
        root: the data root; it is created when missing.
        options: for the driver, each `KEY=VALUE`.

    Raises:
        InvalidParameter: there is no driver of this name, or it lacks one of the options.
        DriverError: it does not work here, and why; or more than one has been used.
    """
    driver = _choose(name, root)
    driver.configure(options)
    return driver


def _choose(name: str | None, root: Path) -> Driver:
    if name is not None:
        if name not in _DRIVERS:
            raise InvalidParameter(
                f"storage driver {name!r} is not known (choose from {', '.join(_DRIVERS)})"
            )
        return _open(name, root)
    used = [known for known in _DRIVERS if _is_used(root / known)]
    if len(used) > 1:
        raise DriverError(
            f"{root} holds layers of several storage drivers, {' and '.join(used)}: choose one with "
            "--storage-driver, or remove the directories of the others"
        )
    if used:
        try:
            return _open(used[0], root)
        except DriverError as error:
            raise DriverError(
                f"{root} has been used with the storage driver {used[0]}, which does not work now: "
                f"{error.message}; choose another with --storage-driver to go on without its containers"
            ) from error
    reasons = []
    for known in _DRIVERS:
        try:
            return _open(known, root)
        except DriverError as error:
            reasons.append(error.message)
            _log.warning("%s", error.message)
    raise DriverError("no storage driver works: " + "; ".join(reasons))


def obstacles(home: Path) -> dict[str, str]:
    """Why each driver cannot be used in a directory, which must exist; "" for one that can. Best first."""
    found = {}
    for name, kind in _DRIVERS.items():
        try:
            if kind.probe is not None:
                kind.probe(home)
        except DriverError as error:
            found[name] = error.message
        else:
            found[name] = ""
    return found


def _is_used(home: Path) -> bool:
    return any(True for kind in ("layers", "containers") for _ in (home / kind).glob("*"))


def _open(name: str, root: Path) -> Driver:
    home = root / name
    fresh = not home.exists()
    home.mkdir(parents=True, exist_ok=True)
    kind = _DRIVERS[name]
    if kind.probe is not None:
        try:
            kind.probe(home)
        except DriverError:
            if fresh:
                home.rmdir()
            raise
    return kind.open(home)
