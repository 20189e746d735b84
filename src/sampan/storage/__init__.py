"""Layers to root file systems.

`open_driver` gives a `Driver`: layers go in as tar streams, containers come out as mounted directories.
`export_tar` writes any such directory as an archive.
"""

from sampan.storage.driver import ADDED, DELETED, MODIFIED, Change, Driver, PreparedLayer, Snapshot
from sampan.storage.errors import DriverError, InvalidLayer, NoSuchLayer, ParentNeeded
from sampan.storage.export import export_tar
from sampan.storage.limits import Limits
from sampan.storage.opening import open_driver

__all__ = [
    "ADDED",
    "DELETED",
    "MODIFIED",
    "Change",
    "Driver",
    "DriverError",
    "InvalidLayer",
    "Limits",
    "NoSuchLayer",
    "ParentNeeded",
    "PreparedLayer",
    "Snapshot",
    "export_tar",
    "open_driver",
]
