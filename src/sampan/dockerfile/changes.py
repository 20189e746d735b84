"""`--change` of import and commit: a Dockerfile's instructions, applied to an image's config."""

from __future__ import annotations

from sampan.dockerfile.parsing import KEYWORDS, parse
from sampan.dockerfile.settings import HANDLERS, Settings, environment_of
from sampan.errors import InvalidParameter
from sampan.oci.image import ImageConfig


def apply_changes(config: ImageConfig, changes: list[str]) -> None:
    """Apply instructions to `config`, in their order.

    Raises:
        InvalidParameter: for an instruction that cannot be a change, or is malformed.
    """
    text = "\n".join(changes)
    if not any(line.strip() and not line.lstrip().startswith("#") for line in text.splitlines()):
        return
    for keyword in (line.split(None, 1)[0].upper() for line in text.splitlines() if line.strip()):
        if keyword in KEYWORDS and keyword not in HANDLERS:
            raise InvalidParameter(f"{keyword} is not a valid change command")
    dockerfile = parse(text)
    settings = Settings(config, dockerfile.escape)
    for instruction in dockerfile.instructions:
        settings.apply(instruction, environment_of(config))
