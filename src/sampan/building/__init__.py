"""`docker build` without BuildKit: a context and a Dockerfile become an image.

`build` does it; `BuildOptions` says what is wanted, `Ending` ends it early.
"""

from sampan.building.ending import Ending
from sampan.building.errors import BuildCancelled, CommandFailed
from sampan.building.options import BuildOptions
from sampan.building.service import build

__all__ = ["BuildCancelled", "BuildOptions", "CommandFailed", "Ending", "build"]
