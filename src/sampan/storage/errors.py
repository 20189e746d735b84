"""What can go wrong with layers and drivers.

InvalidParameter
└── InvalidLayer     the bytes are not a layer, or one that would reach outside its root
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


class DriverError(SampanError):
    """The storage driver cannot work on this machine or file system."""


class ParentNeeded(SampanError):
    """This layer, or this driver, has to look at the layers below."""


class NoSuchLayer(NotFound):
    """The layer, or the container's file system, is not in the store."""
