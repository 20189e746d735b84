"""One build: what all of its parts have in common."""

from __future__ import annotations

from pathlib import Path

from sampan.building.context import Context
from sampan.building.ending import Ending
from sampan.building.options import BuildOptions
from sampan.building.output import Output
from sampan.dataclasses import dataclass
from sampan.engine import Core
from sampan.images import Image


@dataclass(frozen=True, slots=True)
class Job:
    """One build, from its context to its end.

    Attributes:
        context: the files that the client sent.
        scratch: a directory of the build's own, for what is downloaded; it goes at its end.
        output: tells the client.
        ending: ends it early.
    """

    core: Core
    options: BuildOptions
    context: Context
    scratch: Path
    output: Output
    ending: Ending

    def image(self, reference: str) -> Image:
        """The image of an id or name that is here."""
        return self.core.images.resolve(reference)
