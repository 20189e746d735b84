"""The language of Dockerfiles: text to instructions, their words, and what they say of an image's config.

Nothing here builds; see `sampan.building`.
"""

from sampan.dockerfile.arguments import BuildArguments, StageArguments, declared
from sampan.dockerfile.changes import apply_changes
from sampan.dockerfile.copies import Copied, copied
from sampan.dockerfile.parsing import Dockerfile, Instruction, json_list, parse, read
from sampan.dockerfile.settings import HANDLERS, Settings, environment_of
from sampan.dockerfile.stages import Stage, find, needed, split
from sampan.dockerfile.substitution import Words

__all__ = [
    "HANDLERS",
    "BuildArguments",
    "Copied",
    "Dockerfile",
    "Instruction",
    "Settings",
    "Stage",
    "StageArguments",
    "Words",
    "apply_changes",
    "copied",
    "declared",
    "environment_of",
    "find",
    "json_list",
    "needed",
    "parse",
    "read",
    "split",
]
