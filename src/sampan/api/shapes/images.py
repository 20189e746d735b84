"""Images as JSON: the list, inspect, history (`ImageSummary`, `ImageInspect`, `ImageHistoryResponseItem`)."""

from __future__ import annotations

from typing import Any

from sampan.api.shapes.times import ZERO, rfc3339, timestamp_ns
from sampan.http import ApiVersion
from sampan.images import HistoryItem, Image
from sampan.oci.image import Descriptor, ImageConfig, encode_descriptor, encode_platform
from sampan.oci.records import encode
from sampan.oci.reference import Reference

# Members of a container's config that an image's had as well, all at rest, before API 1.50.
_BEFORE_1_50: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Image": "",
}
_ALWAYS = ("User", "Env", "Cmd", "Entrypoint", "Volumes", "WorkingDir", "OnBuild", "Labels")


def unix_time(text: str) -> int:
    """Seconds since 1970 of an RFC 3339 time; 0 for an empty or broken one."""
    return timestamp_ns(text) // 1_000_000_000


def summary(
    image: Image,
    version: ApiVersion,
    containers: int = -1,
    shared_bytes: int = -1,
    names: list[Reference] | None = None,
) -> dict[str, Any]:
    """One entry of `GET /images/json`.

    Args:
        names: the names to show; all of them when not given.
        containers: how many containers use it; -1 when nobody counted.
        shared_bytes: what it shares with other images; -1 when nobody counted.
    """
    wanted = image.names if names is None else names
    tags = [name.familiar for name in wanted if not name.digest]
    digests = [name.familiar for name in wanted if name.digest]
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


def manifest_summary(
    image: Image, descriptor: Descriptor, content_bytes: int, users: list[str]
) -> dict[str, Any]:
    """The one `ImageManifestSummary` of an image.

    Args:
        content_bytes: the size of its blobs.
        users: the ids of its containers.
    """
    return {
        "ID": descriptor.digest,
        "Descriptor": encode_descriptor(descriptor),
        "Available": True,
        "Size": {"Content": content_bytes, "Total": content_bytes + image.size_bytes},
        "Kind": "image",
        "ImageData": {
            "Platform": encode_platform(image.platform),
            "Containers": users,
            "Size": {"Unpacked": image.size_bytes},
        },
    }


def inspect(
    image: Image,
    version: ApiVersion,
    driver: str,
    places: dict[str, str],
    descriptor: Descriptor | None = None,
) -> dict[str, Any]:
    """`GET /images/{name}/json`.

    Args:
        driver: the storage driver's name.
        places: where the driver has its topmost layer.
        descriptor: of its manifest, when the version of the API tells that.
    """
    document = image.document
    comment = document.comment or (document.history[-1].comment if document.history else "")
    shape: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent,
        "Comment": comment,
        "DockerVersion": document.docker_version,
        "Author": document.author,
        "Config": _config(document.config, version),
        "Architecture": document.architecture,
        "Os": image.os,
        "Size": image.size_bytes,
        "GraphDriver": {"Name": driver, "Data": places or None},
        "RootFS": {"Type": "layers", "Layers": document.diff_ids},
        "Metadata": {"LastTagTime": rfc3339(image.tagged_at_ns)},
    }
    if document.created or version < (1, 44):
        shape["Created"] = document.created or ZERO
    if version < (1, 44):
        shape["VirtualSize"] = image.size_bytes
    if version < (1, 45):
        shape["Container"] = ""
        shape["ContainerConfig"] = {**dict.fromkeys(_ALWAYS), **_BEFORE_1_50, "User": "", "WorkingDir": ""}
    if document.variant:
        shape["Variant"] = document.variant
    if document.os_version:
        shape["OsVersion"] = document.os_version
    if descriptor is not None:
        shape["Descriptor"] = encode_descriptor(descriptor)
    return shape


def _config(config: ImageConfig, version: ApiVersion) -> dict[str, Any]:
    encoded: dict[str, Any] = encode(config)
    shape = {name: value for name, value in encoded.items() if value or name in _ALWAYS}
    if "Healthcheck" in shape:
        shape["Healthcheck"] = {name: value for name, value in shape["Healthcheck"].items() if value}
    return shape if version >= (1, 50) else {**_BEFORE_1_50, **shape}


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
