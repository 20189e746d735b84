"""`sampan network ls`: list networks."""

from __future__ import annotations

from sampan.cli.commands.ps import labels
from sampan.cli.flags import Command, Flag
from sampan.cli.human import epoch, local_time, short_id
from sampan.cli.listing import Field, filters, label, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


_RAW = "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n"


def run(app: App, values: Values, arguments: list[str]) -> int:
    """List the networks by name."""
    networks = app.client.call("GET", "/networks", {"filters": filters(values.items("filter"))})
    networks.sort(key=lambda one: one["Name"])
    short = not values.on("no-trunc")

    def created(row: Any) -> str:
        """The moment with its fraction, as Go prints a time."""
        text = local_time(epoch(row["Created"]))
        digits = row["Created"][19:].partition("+")[0].rstrip("Z0")
        return f"{text[:19]}{digits if len(digits) > 1 else ''}{text[19:]}"

    def switch(name: str) -> Any:
        return lambda row: str(bool(row.get(name))).lower()

    fields = {
        "Label": Field("", label, argument=True),
        "ID": Field("NETWORK ID", lambda row: short_id(row["Id"]) if short else row["Id"]),
        "Name": Field("NAME", lambda row: row["Name"]),
        "Driver": Field("DRIVER", lambda row: row["Driver"]),
        "Scope": Field("SCOPE", lambda row: row.get("Scope", "")),
        "IPv4": Field("IPV4", switch("EnableIPv4")),
        "IPv6": Field("IPV6", switch("EnableIPv6")),
        "Internal": Field("INTERNAL", switch("Internal")),
        "Labels": Field("LABELS", lambda row: labels(row.get("Labels"))),
        "CreatedAt": Field("CREATED AT", created),
    }
    quiet = "ID" if values.on("quiet") else ""
    columns = ("ID", "Name", "Driver", "Scope")
    form = values.text("format") or ("" if quiet else str(app.config.get("networksFormat") or ""))
    raw = "network_id: {{.ID}}" if quiet else _RAW
    show(networks, fields, columns, form, quiet, "*network.networkContext", raw=raw)
    return 0


COMMAND = Command(
    "network ls",
    "[OPTIONS]",
    "List networks",
    (
        Flag("filter", "filter", 'Show only what meets the conditions (e.g. "driver=bridge")', "f"),
        Flag("format", "string", "Output: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("no-trunc", "bool", "Show ids in full"),
        Flag("quiet", "bool", "Show network IDs only", "q"),
    ),
    run,
    most=0,
    aliases=("network ls", "network list"),
)
