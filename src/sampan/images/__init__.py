"""Content store, tags, and the archive formats.

`ImageService` is what the engine calls; `Image` is what it gets.
"""

from sampan.images.check import Counts, Finding
from sampan.images.committing import Commit
from sampan.images.content import ContentStore
from sampan.images.downloads import Cancellation
from sampan.images.errors import AmbiguousImage, BrokenContent, ImageInUse, InvalidArchive, NoSuchImage
from sampan.images.image import HistoryItem, Image, Loaded
from sampan.images.service import ImageService

__all__ = [
    "AmbiguousImage",
    "BrokenContent",
    "Cancellation",
    "Commit",
    "ContentStore",
    "Counts",
    "Finding",
    "HistoryItem",
    "Image",
    "ImageInUse",
    "ImageService",
    "InvalidArchive",
    "Loaded",
    "NoSuchImage",
]
