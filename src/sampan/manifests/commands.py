"""`sampan manifest annotate|create|inspect|push|rm`, with the words of docker's client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from sampan.errors import InvalidParameter, NotFound, SampanError
from sampan.manifests.places import Places
from sampan.manifests.store import ListedImage, Store, list_document
from sampan.oci import media_types, reference
from sampan.oci.reference import Reference

# What GOOS and GOARCH may be together (github.com/docker/cli, cli/command/manifest/util.go).
_SYSTEMS = {
    "darwin": "386 amd64 arm arm64",
    "dragonfly": "amd64",
    "freebsd": "386 amd64 arm",
    "linux": "386 amd64 arm arm64 loong64 mips64 mips64le ppc64le riscv64 s390x",
    "netbsd": "386 amd64 arm",
    "openbsd": "386 amd64 arm",
    "plan9": "386 amd64",
    "solaris": "amd64",
    "windows": "386 amd64 arm64",
}
_PLATFORM_FLAGS = {
    "arch": "architecture",
    "os": "os",
    "os-version": "os.version",
    "os-features": "os.features",
    "variant": "variant",
}
Flags = dict[str, Any]


class Manifests:
    """What the commands work on.

    Args:
        store: the lists on this machine.
        places: the registries.
        tell: shows a line.
    """

    def __init__(self, store: Store, places: Places, tell: Callable[[str], None]) -> None:
        self.store = store
        self.places = places
        self.tell = tell


def annotate(manifests: Manifests, arguments: list[str], flags: Flags) -> None:
    """Say what an image of a list runs on."""
    target, named = map(_name, arguments)
    image = manifests.store.image(str(target), str(named))
    if image is None:
        raise NotFound(f"manifest for image {named.familiar} does not exist in {target.familiar}")
    image.platform |= {ours: flags[flag] for flag, ours in _PLATFORM_FLAGS.items() if flags.get(flag)}
    _check_platform(image)
    manifests.store.save(str(target), image)


def create(manifests: Manifests, arguments: list[str], flags: Flags) -> None:
    """Begin a list, or add to one."""
    target, *names = map(_name, arguments)
    if manifests.store.images(str(target)) and not flags.get("amend"):
        raise SampanError("refusing to amend an existing manifest list with no --amend flag")
    kept = [
        manifests.store.image(str(target), str(named)) or manifests.places.image(named) for named in names
    ]
    for image in kept:
        manifests.store.save(str(target), image)
    manifests.tell(f"Created manifest list {target}")


def inspect(manifests: Manifests, arguments: list[str], flags: Flags) -> None:
    """Show a list or a manifest, of this machine before a registry's."""
    verbose = bool(flags.get("verbose"))
    named = _name(arguments[-1])
    if len(arguments) == 2:
        image = manifests.store.image(str(_name(arguments[0])), str(named))
        if image is None:
            raise NotFound(f"No such manifest: {named.familiar}")
        _show_image(manifests, image, verbose)
        return
    images = manifests.store.images(str(named))
    if not images:
        raw, descriptor = manifests.places.manifest(named)
        if descriptor.media_type not in media_types.INDEXES:
            _show_image(manifests, manifests.places.image(named), verbose)
            return
        if not verbose:
            manifests.tell(_pretty(json.loads(raw), "   "))
            return
        images = [_listed(manifests, named, entry) for entry in json.loads(raw)["manifests"]]
    if verbose:
        manifests.tell(_pretty([image.document() for image in images], "\t"))
    else:
        manifests.tell(_pretty(list_document(images), "   "))


def push(manifests: Manifests, arguments: list[str], flags: Flags) -> None:
    """Put a list, and those of its manifests that are in other repositories, into its repository."""
    [target] = map(_name, arguments)
    images = manifests.store.images(str(target))
    if not images:
        raise NotFound(f"No such manifest: {target.familiar}")
    for image in images:
        source = reference.parse(image.reference)
        if source.domain != target.domain:
            raise InvalidParameter(
                "cannot use source images from a different registry than the target image: "
                f"{source.domain} != {target.domain}"
            )
        _check_platform(image)
    repository = manifests.places.repository(target, push=True)
    for image in images:
        source = reference.parse(image.reference)
        if source.path == target.path:
            continue
        manifest = image.manifest
        for blob in (manifest["config"], *manifest["layers"]):
            if not repository.has_blob(blob["digest"]) and not repository.uploads.mount(
                blob["digest"], source.path
            ):
                raise SampanError(
                    f"{target.domain} does not hand {blob['digest']} on from {source.path} to {target.path}: "
                    "push the image there first"
                )
        digest = repository.put_manifest(image.digest, image.raw, image.media_type)
        manifests.tell(f"Pushed ref {target.with_digest(image.digest)} with digest: {digest}")
    document = list_document(images)
    data = _pretty(document, "   ").encode()
    manifests.tell(repository.put_manifest(target.tag or "latest", data, document["mediaType"]))
    if flags.get("purge"):
        manifests.store.remove(str(target))


def remove(manifests: Manifests, arguments: list[str], flags: Flags) -> None:
    """Forget lists."""
    missing = []
    for target in map(_name, arguments):
        if manifests.store.images(str(target)):
            manifests.store.remove(str(target))
        else:
            missing.append(f"No such manifest: {target.familiar}")
    if missing:
        raise NotFound("\n".join(missing))


COMMANDS: dict[str, Callable[[Manifests, list[str], Flags], None]] = {
    "annotate": annotate,
    "create": create,
    "inspect": inspect,
    "push": push,
    "rm": remove,
}


def _name(text: str) -> Reference:
    return reference.parse(text).with_default_tag()


def _listed(manifests: Manifests, named: Reference, entry: dict[str, Any]) -> ListedImage:
    """A member of a registry's list, under docker's name for it."""
    raw, descriptor = manifests.places.manifest(named.with_digest(entry["digest"]))
    title = f"{named}@{entry['digest']}" if not named.digest else str(named.with_digest(entry["digest"]))
    return ListedImage(title, descriptor.media_type, descriptor.digest, raw, entry.get("platform") or {})


def _show_image(manifests: Manifests, image: ListedImage, verbose: bool) -> None:
    manifests.tell(_pretty(image.document() if verbose else image.manifest, "\t"))


def _pretty(value: object, indent: str) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False)


def _check_platform(image: ListedImage) -> None:
    system, architecture = image.platform.get("os", ""), image.platform.get("architecture", "")
    if architecture not in _SYSTEMS.get(system, "").split():
        raise InvalidParameter(
            f"manifest entry for image has unsupported os/arch combination: {system}/{architecture}"
        )
