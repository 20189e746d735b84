"""Which images `GET /images/json` shows: filters, order, shared sizes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from sampan.api.filters import boolean, keeps_labels, until_ns
from sampan.api.shapes.images import manifest_summary, summary
from sampan.api.shapes.times import timestamp_ns
from sampan.engine import Core
from sampan.errors import InvalidParameter
from sampan.http import ApiVersion
from sampan.images import Image
from sampan.oci.image import encode_descriptor
from sampan.oci.reference import Reference

Filters = dict[str, list[str]]
Test = Callable[[Image], bool]


def list_images(
    core: Core,
    version: ApiVersion,
    filters: Filters,
    *,
    everything: bool = False,
    shared: bool = False,
    counted: bool = False,
    manifests: bool = False,
) -> list[dict[str, Any]]:
    """The summaries, those made last first.

    Args:
        everything: also nameless images that others were made from.
        shared: count what images share.
        counted: count the containers of each.
        manifests: tell the manifests of each.

    Raises:
        InvalidParameter: an unknown filter or a value it cannot have.
        NoSuchImage: `before` or `since` names an image that is not here.
    """
    tests = [_test(core, name, values) for name, values in filters.items()]
    images = core.images.list()
    parents = {image.parent for image in images}
    heads_only = not everything or filters.get("dangling", [""])[0] in ("1", "true")
    patterns = [glob(value) for value in filters["reference"]] if "reference" in filters else None
    sizes = _shared_sizes(core, images) if shared else {}
    users = users_by_image(core) if counted or manifests else {}
    found = []
    for image in sorted(images, key=created_ns, reverse=True):
        hidden = heads_only and not image.names and image.id in parents
        if hidden or not all(test(image) for test in tests):
            continue
        containers = len(users.get(image.id, ())) if counted else -1
        names = None if patterns is None else [name for name in image.names if _named(name, patterns)]
        shape = summary(image, version, containers, sizes.get(image.id, -1), names)
        if manifests:
            descriptor = core.images.manifest_descriptor(image)
            size = core.images.content_size(image)
            shape["Manifests"] = [manifest_summary(image, descriptor, size, users.get(image.id, []))]
            shape["Descriptor"] = encode_descriptor(descriptor)
        found.append(shape)
    return found


def created_ns(image: Image) -> int:
    """When an image was made, nanoseconds since 1970."""
    return timestamp_ns(image.created)


def users_by_image(core: Core) -> dict[str, list[str]]:
    """The ids of the containers that were made from each image."""
    users: dict[str, list[str]] = {}
    for live in list(core.containers.values()):
        users.setdefault(live.container.image_id, []).append(live.id)
    return users


def _shared_sizes(core: Core, images: list[Image]) -> dict[str, int]:
    uses = Counter(layer for image in images for layer in image.document.chain_ids)
    size = core.images.layer_size
    return {
        image.id: sum(size(layer) for layer in image.document.chain_ids if uses[layer] > 1)
        for image in images
    }


def _test(core: Core, name: str, values: list[str]) -> Test:
    """One filter; values of the same filter are alternatives, but labels and times must all be met."""
    if name == "dangling":
        if boolean({name: values}, name, False):
            return lambda image: not image.repo_tags
        return lambda image: bool(image.names)
    if name in ("label", "label!"):
        return lambda image: keeps_labels({name: values}, image.config.labels or {})
    if name == "reference":
        patterns = [glob(value) for value in values]
        return lambda image: any(_named(reference, patterns) for reference in image.names)
    if name in ("before", "since"):
        limits = [created_ns(core.images.resolve(value)) for value in values]
        if name == "before":
            return lambda image: created_ns(image) < min(limits)
        return lambda image: created_ns(image) > max(limits)
    if name == "until":
        limit = until_ns({name: values})
        assert limit is not None or not values
        return lambda image: limit is None or created_ns(image) <= limit
    raise InvalidParameter(f"invalid filter '{name}'")


def _named(reference: Reference, patterns: list[re.Pattern[str]]) -> bool:
    texts = (reference.familiar, reference.familiar_name)
    return any(pattern.fullmatch(text) for pattern in patterns for text in texts)


def glob(pattern: str) -> re.Pattern[str]:
    """A pattern by the rules of Go's path.Match: `*` and `?` stop at a slash."""
    parts = []
    position = 0
    while position < len(pattern):
        letter = pattern[position]
        close = pattern.find("]", position + 2) if letter == "[" else -1
        if letter == "*":
            parts.append("[^/]*")
        elif letter == "?":
            parts.append("[^/]")
        elif close > 0:
            inner = pattern[position + 1 : close].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[{inner}]")
            position = close
        else:
            parts.append(re.escape(letter))
        position += 1
    try:
        return re.compile("".join(parts))
    except re.error:
        raise InvalidParameter(f"invalid filter 'reference={pattern}'") from None
