"""Named volumes of the local driver."""

from __future__ import annotations

from sampan.volumes.ownership import Translation, give
from sampan.volumes.service import VolumeService
from sampan.volumes.volume import Volume, describe, disk_bytes, size_bytes

__all__ = ["Translation", "Volume", "VolumeService", "describe", "disk_bytes", "give", "size_bytes"]
