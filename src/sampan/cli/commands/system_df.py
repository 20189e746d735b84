"""`sampan system df`: the disk that images, containers and volumes take, and what of it could be had back."""

from __future__ import annotations

from sampan.cli.app import out
from sampan.cli.commands import images, ps, volume_ls
from sampan.cli.flags import Command, Flag
from sampan.cli.human import exact_size, size
from sampan.cli.listing import Field, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values

_SUMMARY = ("Type", "TotalCount", "Active", "Size", "Reclaimable")
_IMAGES = ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers")
_CONTAINERS = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
_VOLUMES = ("Name", "Links", "Size")
_CACHE = ("ID", "CacheType", "Size", "CreatedSince", "LastUsedSince", "UsageCount", "Shared")


_GO_NAMES = {
    "Images": "image",
    "Containers": "Container",
    "Volumes": "volume",
    "BuildCache": "buildCache",
}
_RAW = """type: {{.Type}}
total: {{.TotalCount}}
active: {{.Active}}
size: {{.Size}}
reclaimable: {{.Reclaimable}}
"""
_RAW_EACH = f"""{{{{range .Images}}}}type: Image
{images.RAW_DIGEST}
{{{{end}}}}{{{{range .Containers}}}}type: Container
{ps.RAW}size: {{{{.Size}}}}

{{{{end}}}}{{{{range .Volumes}}}}type: Volume
{volume_ls.RAW}
{{{{end}}}}"""


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Show a line for each kind of object, or with --verbose each object."""
    usage = app.client.call("GET", "/system/df")
    form = values.text("format")
    if values.on("verbose"):
        _each(usage, form)
        return 0
    titles = {"TotalCount": "TOTAL"}
    fields = {name: _plain(name, titles.get(name, name.upper())) for name in _SUMMARY}
    show(
        summary(usage),
        fields,
        _SUMMARY,
        form,
        type_name="*formatter.diskUsageImagesContext",
        raw=_RAW,
    )
    return 0


def _plain(name: str, title: str) -> Field:
    return Field(title, lambda row: row[name])


def summary(usage: dict[str, Any]) -> list[dict[str, str]]:
    """The four lines: how many objects there are, how many are in use, what they take and would give back."""
    images, containers = usage.get("Images") or [], usage.get("Containers") or []
    volumes = [(one.get("UsageData") or {}) for one in usage.get("Volumes") or []]
    caches = usage.get("BuildCache") or []
    running = [one for one in containers if one.get("State") in ("running", "paused", "restarting")]
    in_use = [one for one in images if one.get("Containers")]
    kept = sum(one["Size"] - one["SharedSize"] for one in in_use if one.get("SharedSize", -1) >= 0)
    layers = usage.get("LayersSize") or 0
    written = sum(one.get("SizeRw") or 0 for one in containers)
    still = written - sum(one.get("SizeRw") or 0 for one in running)
    filled = sum(max(one.get("Size", 0), 0) for one in volumes)
    idle = sum(max(one.get("Size", 0), 0) for one in volumes if not one.get("RefCount"))
    cached = sum(one["Size"] for one in caches if not one.get("Shared"))
    unused = sum(one["Size"] for one in caches if not one.get("Shared") and not one.get("InUse"))
    linked = sum(one.get("RefCount", 0) > 0 for one in volumes)
    building = sum(bool(one.get("InUse")) for one in caches)
    return [
        _line("Images", len(images), len(in_use), layers, _share(max(layers - kept, 0), layers)),
        _line("Containers", len(containers), len(running), written, _share(still, written)),
        _line("Local Volumes", len(volumes), linked, filled, _share(idle, filled)),
        _line("Build Cache", len(caches), building, cached, exact_size(unused)),
    ]


def _line(kind: str, total: int, active: int, taken: int, reclaimable: str) -> dict[str, str]:
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": exact_size(taken),
        "Reclaimable": reclaimable,
    }


def _share(part: int, whole: int) -> str:
    return f"{exact_size(part)} ({part * 100 // whole}%)" if whole > 0 else exact_size(part)


def _each(usage: dict[str, Any], form: str) -> None:
    short = form in ("", "table")
    named = [_named(one) for one in usage.get("Images") or []]
    containers = [{**one, "SizeRootFs": 0} for one in usage.get("Containers") or []]
    volumes, caches = usage.get("Volumes") or [], usage.get("BuildCache") or []
    tables = (
        ("Images", named, images.fields(short), _IMAGES),
        ("Containers", containers, ps.fields(short), _CONTAINERS),
        ("Volumes", volumes, volume_ls.FIELDS, _VOLUMES),
        ("BuildCache", caches, _cache_fields(), _CACHE),
    )
    if not short:
        from sampan.cli.template import Row, lists_template

        lists = {
            kind: [Row(row, fields, f"*formatter.{_GO_NAMES[kind]}Context") for row in rows]
            for kind, rows, fields, _ in tables
        }
        lists_template(_RAW_EACH if form == "raw" else form, lists, "*formatter.diskUsageContext")
        return
    cached = sum(one["Size"] for one in caches if not one.get("Shared"))
    titles = ("Images space usage:", "\nContainers space usage:", "\nLocal Volumes space usage:")
    for title, (_, rows, fields, columns) in zip(
        (*titles, f"\nBuild cache usage: {exact_size(cached)}"), tables, strict=True
    ):
        out(f"{title}\n\n")
        show(rows, fields, columns)


def _named(image: dict[str, Any]) -> dict[str, Any]:
    """An image with its first name."""
    tags = [tag for tag in image.get("RepoTags") or () if tag != "<none>:<none>"]
    repository, _, tag = tags[0].rpartition(":") if tags else ("<none>", "", "<none>")
    return {**image, "Repository": repository, "Tag": tag, "Digest": ""}


def _cache_fields() -> dict[str, Field]:
    return {
        "ID": Field("CACHE ID", lambda row: row["ID"]),
        "CacheType": Field("CACHE TYPE", lambda row: row.get("Type", "")),
        "Size": Field("SIZE", lambda row: size(row["Size"])),
        "CreatedSince": Field("CREATED", lambda row: row.get("CreatedAt", "")),
        "LastUsedSince": Field("LAST USED", lambda row: row.get("LastUsedAt") or ""),
        "UsageCount": Field("USAGE", lambda row: str(row.get("UsageCount", 0))),
        "Shared": Field("SHARED", lambda row: str(bool(row.get("Shared"))).lower()),
    }


COMMAND = Command(
    "system df",
    "[OPTIONS]",
    "Show disk usage",
    (
        Flag("format", "string", "Output: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("verbose", "bool", "Show each object", "v"),
    ),
    run,
    most=0,
)
