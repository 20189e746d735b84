"""`sampan images`: list images."""

from __future__ import annotations

from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag
from sampan.cli.human import NO_TIME, ago, exact_size, local_time, short_id, size
from sampan.cli.listing import Field, filters, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values

_NONE = "<none>"


RAW_DIGEST = """repository: {{.Repository}}
tag: {{.Tag}}
digest: {{.Digest}}
image_id: {{.ID}}
created_at: {{.CreatedAt}}
virtual_size: {{.Size}}
"""
RAW = RAW_DIGEST.replace("digest: {{.Digest}}\n", "")


def _age(created: float) -> str:
    return ago(created) if created > NO_TIME else "N/A"


def run(app: App, values: Values, arguments: list[str]) -> int:
    """List the images that the flags choose, one row for each name."""
    if values.on("tree"):
        for name, called in (("quiet", "quiet"), ("no-trunc", "no-trunc"), ("digests", "show-digest")):
            if values.on(name):
                raise CommandError(f"--{called} is not yet supported with --tree")
        if values.text("format"):
            raise CommandError("--format is not yet supported with --tree")
    chosen = filters(values.items("filter"))
    if arguments:
        chosen.setdefault("reference", {})[arguments[0]] = True
    if values.on("tree"):
        from sampan.cli.commands.images_tree import show as show_tree

        show_tree(app, values.on("all"), chosen)
        return 0
    images = app.client.call("GET", "/images/json", {"all": values.on("all"), "filters": chosen})
    form = values.text("format") or ("" if values.on("quiet") else str(app.config.get("imagesFormat") or ""))
    digests = values.on("digests") or ".Digest" in form
    columns = ["Repository", "Tag", "ID", "CreatedSince", "Size"]
    if values.on("digests"):
        columns.insert(2, "Digest")
    show(
        rows(images, digests, bool(chosen.get("dangling"))),
        fields(not values.on("no-trunc")),
        columns,
        form,
        "ID" if values.on("quiet") else "",
        "*formatter.imageContext",
        raw="image_id: {{.ID}}" if values.on("quiet") else RAW_DIGEST if values.on("digests") else RAW,
    )
    return 0


def rows(images: list[dict[str, Any]], digests: bool, dangling: bool = False) -> list[dict[str, Any]]:
    """A row for each name that an image has; one with <none> for an image without a name."""
    found = []
    for image in images:
        tags = [tag for tag in image.get("RepoTags") or () if tag != f"{_NONE}:{_NONE}"]
        names: dict[str, list[str]] = {}
        for tag in tags:
            repository, _, label = tag.rpartition(":")
            names.setdefault(repository, []).append(label)
        sums: dict[str, list[str]] = {}
        for one in image.get("RepoDigests") or ():
            repository, _, digest = one.partition("@")
            if repository != _NONE:
                sums.setdefault(repository, []).append(digest)
        if not names and not sums:
            found.append({**image, "Repository": _NONE, "Tag": _NONE, "Digest": _NONE})
        for repository, labels in names.items():
            known = sums.pop(repository, None) or [_NONE]
            for label in labels:
                for digest in known if digests else known[:1]:
                    found.append({**image, "Repository": repository, "Tag": label, "Digest": digest})
        for repository, known in sums.items():
            for digest in known if digests else known[:1]:
                found.append({**image, "Repository": repository, "Tag": _NONE, "Digest": digest})
    return found


def fields(short: bool) -> dict[str, Field]:
    """What a template may ask of an image; `short` shortens ids."""

    def known(row: Any, name: str) -> str:
        value = row.get(name, -1)
        return "N/A" if value is None or value < 0 else exact_size(value)

    def unique(row: Any) -> str:
        shared = row.get("SharedSize", -1)
        return "N/A" if shared is None or shared < 0 else exact_size(row["Size"] - shared)

    def containers(row: Any) -> str:
        value = row.get("Containers", -1)
        return "N/A" if value is None or value < 0 else str(value)

    return {
        "ID": Field("IMAGE ID", lambda row: short_id(row["Id"]) if short else row["Id"]),
        "Repository": Field("REPOSITORY", lambda row: row["Repository"]),
        "Tag": Field("TAG", lambda row: row["Tag"]),
        "Digest": Field("DIGEST", lambda row: row["Digest"]),
        "CreatedSince": Field("CREATED", lambda row: _age(row["Created"])),
        "CreatedAt": Field("CREATED AT", lambda row: local_time(row["Created"])),
        "Size": Field("SIZE", lambda row: size(row["Size"])),
        "Containers": Field("CONTAINERS", containers),
        "VirtualSize": Field("SIZE", lambda row: exact_size(row["Size"])),
        "SharedSize": Field("SHARED SIZE", lambda row: known(row, "SharedSize")),
        "UniqueSize": Field("UNIQUE SIZE", unique),
    }


COMMAND = Command(
    "images",
    "[OPTIONS] [REPOSITORY[:TAG]]",
    "List images",
    (
        Flag("all", "bool", "Show intermediate images too", "a"),
        Flag("digests", "bool", "Show digests"),
        Flag("filter", "filter", "Show only what meets the conditions", "f"),
        Flag("format", "string", "Output: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("no-trunc", "bool", "Show ids in full"),
        Flag("quiet", "bool", "Show image IDs only", "q"),
        Flag("tree", "bool", "Show the platforms of images as a tree"),
    ),
    run,
    most=1,
    aliases=("image ls", "image list", "images"),
)
