"""The build arguments that tell of platforms ("Automatic platform ARGs in the global scope").

They are BuildKit's; a Dockerfile that was written for it finds them here as well.
"""

from __future__ import annotations

from sampan.oci.image import Platform, local_architecture
from sampan.oci.platforms import shown


def platform_arguments(target: Platform | None) -> dict[str, str]:
    """The arguments for a target, this machine when it is not given."""
    here = Platform("linux", local_architecture())
    found = {}
    for name, platform in (("BUILD", here), ("TARGET", target or here)):
        found[f"{name}PLATFORM"] = shown(platform)
        found[f"{name}OS"] = platform.os
        found[f"{name}ARCH"] = platform.architecture
        found[f"{name}VARIANT"] = platform.variant
    return found
