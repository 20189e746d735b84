"""What can go wrong with images.

NotFound
└── NoSuchImage
Conflict
└── ImageInUse          a container, a child image or another name stands in the way of a removal
InvalidParameter
├── AmbiguousImage      an id's prefix that several images share
└── InvalidArchive      not an archive of images, or a broken one
"""

from __future__ import annotations

from sampan.errors import Conflict, InvalidParameter, NotFound


class NoSuchImage(NotFound):
    """No image has this name or id."""


class ImageInUse(Conflict):
    """The image cannot be removed now."""


class AmbiguousImage(InvalidParameter):
    """Several images fit; more of the id is needed."""


class InvalidArchive(InvalidParameter):
    """The bytes are no archive of images that can be read."""
