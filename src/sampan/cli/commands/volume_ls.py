"""`sampan volume ls`: list volumes."""

from __future__ import annotations

from sampan.cli.commands.ps import labels
from sampan.cli.flags import Command, Flag
from sampan.cli.human import size
from sampan.cli.listing import Field, filters, label, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """List the volumes by name."""
    answer = app.client.call("GET", "/volumes", {"filters": filters(values.items("filter"))})
    volumes = sorted(answer.get("Volumes") or (), key=lambda one: _natural(one["Name"]))
    columns: tuple[str, ...] = ("Driver", "Name")
    if values.on("cluster"):  # Swarm's, of which only another engine has any
        volumes = [one for one in volumes if one.get("ClusterVolume")]
        columns = ("Name", "Group", "Driver", "Availability", "Status")
    quiet = "Name" if values.on("quiet") else ""
    form = values.text("format") or ("" if quiet else str(app.config.get("volumesFormat") or ""))
    raw = "name: {{.Name}}" if quiet else RAW
    show(volumes, FIELDS, columns, form, quiet, "*formatter.volumeContext", raw=raw)
    return 0


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers inside names as numbers."""
    parts: list[tuple[int, int, str]] = []
    for one in name:
        if one.isdecimal() and parts and parts[-1][0] == 0:
            parts[-1] = (0, parts[-1][1] * 10 + int(one), "")
        elif one.isdecimal():
            parts.append((0, int(one), ""))
        else:
            parts.append((1, 0, one))
    return parts


def _usage(row: Any, name: str) -> str:
    data = row.get("UsageData") or {}
    value = data.get(name, -1)
    if value < 0:
        return "N/A"
    return size(value) if name == "Size" else str(value)


RAW = "name: {{.Name}}\ndriver: {{.Driver}}\n"
FIELDS = {
    "Label": Field("", label, argument=True),
    "Name": Field("VOLUME NAME", lambda row: row["Name"]),
    "Driver": Field("DRIVER", lambda row: row["Driver"]),
    "Scope": Field("SCOPE", lambda row: row.get("Scope", "")),
    "Mountpoint": Field("MOUNTPOINT", lambda row: row.get("Mountpoint", "")),
    "Labels": Field("LABELS", lambda row: labels(row.get("Labels"))),
    "Links": Field("LINKS", lambda row: _usage(row, "RefCount")),
    "Size": Field("SIZE", lambda row: _usage(row, "Size")),
    "Availability": Field("AVAILABILITY", lambda row: "N/A"),
    "Group": Field("GROUP", lambda row: "N/A"),
    "Status": Field("STATUS", lambda row: "N/A"),
}

COMMAND = Command(
    "volume ls",
    "[OPTIONS]",
    "List volumes",
    (
        Flag("cluster", "bool", "Show cluster volumes only"),
        Flag("filter", "filter", 'Show only what meets the conditions (e.g. "dangling=true")', "f"),
        Flag("format", "string", "Output: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("quiet", "bool", "Show volume names only", "q"),
    ),
    run,
    most=0,
    aliases=("volume ls", "volume list"),
)
