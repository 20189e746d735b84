"""What can go wrong with layers and drivers.

InvalidParameter
├── InvalidLayer     the bytes are not a layer, or one that would reach outside its root
└── InvalidArchive   the same of an archive that is copied into a container
SampanError
├── DriverError      the driver cannot work here
└── ParentNeeded     the layer cannot be unpacked before it is known what lies below it
NotFound
└── NoSuchLayer
"""

from __future__ import annotations

from sampan.errors import InvalidParameter, NotFound, SampanError


class InvalidLayer(InvalidParameter):
    """The archive is broken, hostile, or larger than the limits allow."""


class InvalidArchive(InvalidParameter):
    """The archive is broken, would reach outside its directory, or what is there stands in its way."""


class DriverError(SampanError):
    """The storage driver cannot work on this machine or file system."""


class ParentNeeded(SampanError):
    """This layer, or this driver, has to look at the layers below."""


class NoSuchLayer(NotFound):
    """The layer, or the container's file system, is not in the store."""
