"""Choosing the storage driver."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from sampan.errors import InvalidParameter
from sampan.storage import overlay2, vfs
from sampan.storage.driver import Driver
from sampan.storage.errors import DriverError

_log = logging.getLogger(__name__)


def _overlay2(home: Path) -> Driver:
    overlay2.probe(home)
    return overlay2.Overlay2(home)


_DRIVERS: dict[str, Callable[[Path], Driver]] = {"overlay2": _overlay2, "vfs": vfs.Vfs}


def open_driver(name: str | None, root: Path) -> Driver:
    """The driver called `name`, or the best one that works, with its directory in `root`.

    Args:
        name: "overlay2", "vfs", or None to choose: the one that holds layers, else overlay2, else vfs.
        root: the data root; it is created when missing.

    Raises:
        InvalidParameter: there is no driver of this name.
        DriverError: it does not work here, and why.
    """
    if name is not None:
        if name not in _DRIVERS:
            raise InvalidParameter(
                f"storage driver {name!r} is not known (choose from {', '.join(_DRIVERS)})"
            )
        return _open(name, root)
    for known in _DRIVERS:
        if any((root / known / "layers").glob("*")):
            return _open(known, root)
    reasons = []
    for known in _DRIVERS:
        try:
            return _open(known, root)
        except DriverError as error:
            reasons.append(error.message)
            _log.warning("%s", error.message)
    raise DriverError("no storage driver works: " + "; ".join(reasons))


def _open(name: str, root: Path) -> Driver:
    home = root / name
    home.mkdir(parents=True, exist_ok=True)
    return _DRIVERS[name](home)
