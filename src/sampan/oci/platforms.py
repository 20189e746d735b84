"""Platforms as people and clients write them, and which of them an image satisfies.

The words and the rules of normalising and matching are those of https://github.com/containerd/platforms : an
image for an older variant of a processor, or for its 32 bit mode, runs on the newer one.
"""

from __future__ import annotations

import json

from sampan.errors import InvalidParameter
from sampan.oci.image import Platform, local_architecture, parse_platform

_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_SYSTEMS = frozenset(
    ("linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "plan9", "wasip1")
)
_ARCHITECTURES = frozenset(
    (
        "386",
        "amd64",
        "arm",
        "arm64",
        "loong64",
        "mips",
        "mips64",
        "mips64le",
        "mipsle",
        "ppc64",
        "ppc64le",
        "riscv64",
        "s390x",
        "wasm",
    )
)
_ARM_VARIANTS = ("v8", "v7", "v6", "v5")


def from_text(text: str) -> Platform:
    """A platform from `os`, `architecture`, `os/architecture` or `os/architecture/variant`.

    Raises:
        InvalidParameter: it has other parts, or empty ones.
    """
    parts = text.split("/")
    if not 1 <= len(parts) <= 3 or not all(parts):
        raise InvalidParameter(f"invalid platform {text!r}: expected os[/architecture[/variant]]")
    if len(parts) == 1 and parts[0].lower() not in _SYSTEMS:
        architecture = parts[0].lower()
        if architecture not in _ARCHITECTURES and architecture not in _ALIASES:
            raise InvalidParameter(f'"{text}": unknown operating system or architecture: invalid argument')
        return normal(Platform("linux", architecture))
    architecture = parts[1] if len(parts) > 1 else local_architecture()
    return normal(Platform(parts[0], architecture, parts[2] if len(parts) > 2 else ""))


def from_json(text: str) -> Platform:
    """A platform from the JSON object that the Engine API's `platform` parameters are.

    Raises:
        InvalidParameter: it is none.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidParameter(f"failed to parse platform: {text[:80]!r} is not a JSON object")
    platform = parse_platform(value)
    if not platform.os or not platform.architecture:
        raise InvalidParameter("failed to parse platform: both os and architecture must be provided")
    return normal(platform)


def normal(platform: Platform) -> Platform:
    """The same platform under its usual names; a variant that goes without saying is left out."""
    architecture, variant = platform.architecture.lower(), platform.variant.lower()
    if architecture in _ALIASES:
        architecture, implied = _ALIASES[architecture]
        variant = variant or implied
    if variant.isdigit():
        variant = f"v{variant}"
    if architecture == "arm" and not variant:
        variant = "v7"
    if (architecture, variant) in (("arm64", "v8"), ("amd64", "v1")):
        variant = ""
    return Platform(platform.os.lower(), architecture, variant, platform.os_version)


def shown(platform: Platform) -> str:
    """`os/architecture/variant`, as far as they are known."""
    return (
        "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part) or "unknown"
    )


def satisfies(image: Platform, wanted: Platform) -> bool:
    """Whether an image for one platform may be used where another one is wanted (both in any spelling)."""
    if preference(image, wanted) is not None:
        return True
    have, want = normal(image), normal(wanted)  # a config without a variant may just not tell
    return have.os == want.os and not image.variant and have.architecture == want.architecture


def preference(image: Platform, wanted: Platform) -> int | None:
    """How well an image fits a platform: 0 exactly, more the further away; None not at all."""
    have, want = normal(image), normal(wanted)
    if have.os != want.os:
        return None
    runnable, kind = _runnable(want), (have.architecture, have.variant)
    return runnable.index(kind) if kind in runnable else None


def _runnable(want: Platform) -> list[tuple[str, str]]:
    """Architectures and variants that a machine of this kind runs, the best first."""
    found = [(want.architecture, want.variant)]
    if want.architecture == "amd64" and want.variant[1:].isdigit():
        found += [("amd64", f"v{level}") for level in range(int(want.variant[1:]) - 1, 1, -1)]
        found.append(("amd64", ""))
    if want.architecture == "amd64":
        found.append(("386", ""))
    if want.architecture in ("arm", "arm64"):
        newest = want.variant if want.architecture == "arm" else "v8"
        if newest in _ARM_VARIANTS:
            found += [("arm", older) for older in _ARM_VARIANTS[_ARM_VARIANTS.index(newest) :]]
    return list(dict.fromkeys(found))
