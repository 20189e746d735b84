"""Images as JSON: the list, inspect, history (`ImageSummary`, `ImageInspect`, `ImageHistoryResponseItem`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sampan.api.shapes.times import rfc3339
from sampan.http import ApiVersion
from sampan.images import HistoryItem, Image
from sampan.oci.image import ImageConfig
from sampan.oci.records import encode

_ALWAYS = ("User", "Env", "Cmd", "Entrypoint", "Volumes", "WorkingDir", "OnBuild", "Labels")


def unix_time(text: str) -> int:
    """Seconds since 1970 of an RFC 3339 time; 0 for an empty or broken one."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp())


def summary(
    image: Image,
    version: ApiVersion,
    containers: int = -1,
    shared_bytes: int = -1,
    tags: list[str] | None = None,
) -> dict[str, Any]:
    """One entry of `GET /images/json`.

    Args:
        tags: the names to show; all of them when not given.
        containers: how many containers use it; -1 when nobody counted.
        shared_bytes: what it shares with other images; -1 when nobody counted.
    """
    tags, digests = image.repo_tags if tags is None else tags, image.repo_digests
    if version < (1, 43) and not tags and not digests:
        tags, digests = ["<none>:<none>"], ["<none>@<none>"]
    shape: dict[str, Any] = {
        "Containers": containers,
        "Created": unix_time(image.created),
        "Id": image.id,
        "Labels": image.config.labels,
        "ParentId": image.parent,
        "RepoDigests": digests,
        "RepoTags": tags,
        "SharedSize": shared_bytes,
        "Size": image.size_bytes,
    }
    if version < (1, 44):
        shape["VirtualSize"] = image.size_bytes
    return shape


def inspect(image: Image, version: ApiVersion, driver: str) -> dict[str, Any]:
    """`GET /images/{name}/json`.

    Args:
        driver: the storage driver's name.
    """
    document = image.document
    shape: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent,
        "Comment": document.comment,
        "Created": document.created or rfc3339(0),
        "DockerVersion": document.docker_version,
        "Author": document.author,
        "Config": _config(document.config),
        "Architecture": document.architecture,
        "Os": image.os,
        "Size": image.size_bytes,
        "GraphDriver": {"Name": driver, "Data": {}},
        "RootFS": {"Type": "layers", "Layers": document.diff_ids},
        "Metadata": {"LastTagTime": rfc3339(image.tagged_at_ns)},
    }
    if document.variant:
        shape["Variant"] = document.variant
    if document.os_version:
        shape["OsVersion"] = document.os_version
    if version < (1, 44):
        shape["VirtualSize"] = image.size_bytes
    return shape


def _config(config: ImageConfig) -> dict[str, Any]:
    encoded: dict[str, Any] = encode(config)
    return {name: value for name, value in encoded.items() if value or name in _ALWAYS}


def history(items: list[HistoryItem]) -> list[dict[str, Any]]:
    """`GET /images/{name}/history`."""
    return [
        {
            "Id": item.id,
            "Created": unix_time(item.created),
            "CreatedBy": item.created_by,
            "Tags": item.tags or None,
            "Size": item.size_bytes,
            "Comment": item.comment,
        }
        for item in items
    ]
