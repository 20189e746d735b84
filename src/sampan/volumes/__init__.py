"""Named volumes of the local driver."""

from __future__ import annotations

from sampan.volumes.service import Volume, VolumeService, describe, size_bytes

__all__ = ["Volume", "VolumeService", "describe", "size_bytes"]
