"""Layers to root file systems.

`open_driver` gives a `Driver`: layers go in as tar streams, containers come out as mounted directories.
`export_tar` writes any such directory as an archive; `archive_path` and `extract` are for a part.
"""

from sampan.storage.driver import ADDED, DELETED, MODIFIED, Change, Driver, PreparedLayer, Snapshot
from sampan.storage.errors import DriverError, InvalidArchive, InvalidLayer, NoSuchLayer, ParentNeeded
from sampan.storage.export import archive_path, export_tar, write_path, write_tree
from sampan.storage.extraction import extract
from sampan.storage.limits import Limits
from sampan.storage.opening import open_driver

__all__ = [
    "ADDED",
    "DELETED",
    "MODIFIED",
    "Change",
    "Driver",
    "DriverError",
    "InvalidArchive",
    "InvalidLayer",
    "Limits",
    "NoSuchLayer",
    "ParentNeeded",
    "PreparedLayer",
    "Snapshot",
    "archive_path",
    "export_tar",
    "extract",
    "open_driver",
    "write_path",
    "write_tree",
]
