"""What can go wrong with images.

NotFound
└── NoSuchImage
Conflict
└── ImageInUse          a container, a child image or another name stands in the way of a removal
SampanError
├── BrokenContent       the store has lost or spoiled a blob; `system check` tells more, and heals what it can
├── NoSpace             the disk is full, or would be
└── PullCancelled       nobody waits for the pull any more
InvalidParameter
├── AmbiguousImage      an id's prefix that several images share
└── InvalidArchive      not an archive of images, or a broken one
"""

from __future__ import annotations

from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError


class NoSuchImage(NotFound):
    """No image has this name or id."""


class ImageInUse(Conflict):
    """The image cannot be removed now."""


class AmbiguousImage(InvalidParameter):
    """Several images fit; more of the id is needed."""


class InvalidArchive(InvalidParameter):
    """The bytes are no archive of images that can be read."""


class NoSpace(SampanError):
    """The disk is full, or would be."""


class PullCancelled(SampanError):
    """Nobody waits for the pull any more."""


class BrokenContent(SampanError):
    """A blob of the store is missing or no longer what it was.

    Args:
        digest: the blob.
        what: what is wrong with it.
    """

    def __init__(self, digest: str, what: str) -> None:
        super().__init__(
            f"content {digest} is broken: {what}; run 'sampan system check' to see what it means"
        )
        self.digest = digest
