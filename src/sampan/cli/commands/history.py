"""`sampan history`: the steps that made an image."""

from __future__ import annotations

from sampan.cli import platforms
from sampan.cli.client import escape
from sampan.cli.flags import Command, Flag
from sampan.cli.human import NO_TIME, ago, ellipsis, rfc3339, short_id, size
from sampan.cli.listing import Field, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """List the steps, the newest first."""
    query = platforms.query(values.text("platform"))
    steps = app.client.call("GET", f"/images/{escape(arguments[0], '/:@')}/history", query)
    human, short = values.on("human"), not values.on("no-trunc")

    def identity(row: Any) -> str:
        return short_id(row["Id"]) if short else row["Id"]

    def made_by(row: Any) -> str:
        text = row.get("CreatedBy", "").replace("\t", " ")
        return ellipsis(text, 45) if short else text

    def since(row: Any) -> str:
        if not human:
            return rfc3339(row["Created"])
        return ago(row["Created"]) if row["Created"] > NO_TIME else "N/A"

    fields = {
        "ID": Field("IMAGE", identity),
        "CreatedSince": Field("CREATED" if human else "CREATED AT", since),
        "CreatedAt": Field("CREATED AT", lambda row: rfc3339(row["Created"])),
        "CreatedBy": Field("CREATED BY", made_by),
        "Size": Field("SIZE", lambda row: size(row["Size"]) if human else str(row["Size"])),
        "Comment": Field("COMMENT", lambda row: row.get("Comment", "")),
    }
    columns = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
    quiet = "ID" if values.on("quiet") else ""
    show(steps, fields, columns, values.text("format"), quiet, "*image.historyContext")
    return 0


COMMAND = Command(
    "history",
    "[OPTIONS] IMAGE",
    "Show the history of an image",
    (
        Flag("format", "string", "Output: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("human", "bool", "Show sizes and dates as people read them", "H", True),
        Flag("no-trunc", "bool", "Show everything in full"),
        Flag("platform", "string", 'Show this platform ("os[/arch[/variant]]")'),
        Flag("quiet", "bool", "Show image IDs only", "q"),
    ),
    run,
    least=1,
    most=1,
    aliases=("image history", "history"),
)
