"""Which endpoint a path means (OCI distribution spec, "Endpoints"; Docker's `_catalog` and v1 search; pages).

Repository names have slashes, so a path is read from its end: `<name>/manifests/<reference>` and so on.
"""

from __future__ import annotations

from sampan.dataclasses import dataclass

READ = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names.

    Attributes:
        kind: one of the keys of `METHODS`.
        name: the repository, still unchecked.
        reference: tag, digest or id of an upload, still unchecked.
    """

    kind: str
    name: str = ""
    reference: str = ""


METHODS: dict[str, tuple[str, ...]] = {
    "base": READ,
    "catalog": READ,
    "tags": READ,
    "manifest": (*READ, "PUT", "DELETE"),
    "referrers": READ,
    "blob": (*READ, "DELETE"),
    "uploads": ("POST",),
    "upload": ("GET", "HEAD", "PATCH", "PUT", "DELETE"),
    "v1-ping": READ,
    "search": READ,
    "front-page": READ,
    "repository-page": READ,
}
_FIXED = {
    "/": Target("front-page"),
    "/v2": Target("base"),
    "/v2/": Target("base"),
    "/v2/_catalog": Target("catalog"),
    "/v1/_ping": Target("v1-ping"),
    "/v1/search": Target("search"),
}


def find(path: str) -> Target | None:
    """The endpoint of a decoded path, None when there is none."""
    fixed = _FIXED.get(path)
    if fixed is not None:
        return fixed
    if path.startswith("/repository/"):
        return Target("repository-page", path.removeprefix("/repository/"))
    if not path.startswith("/v2/"):
        return None
    front, _, reference = path.removeprefix("/v2/").rpartition("/")
    name, _, kind = front.rpartition("/")
    if kind == "manifests":
        return Target("manifest", name, reference)
    if kind == "uploads" and name.endswith("/blobs"):
        name = name.removesuffix("/blobs")
        return Target("upload", name, reference) if reference else Target("uploads", name)
    if kind == "blobs":
        return Target("uploads", name) if reference == "uploads" else Target("blob", name, reference)
    if kind == "referrers":
        return Target("referrers", name, reference)
    if kind == "tags" and reference == "list":
        return Target("tags", name)
    return None
