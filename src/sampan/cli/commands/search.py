"""`sampan search`: images on Docker Hub, or on a registry that can be searched."""

from __future__ import annotations

from sampan.cli.credentials import header_for
from sampan.cli.flags import Command, Flag
from sampan.cli.listing import Field, filters, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values

_DESCRIPTION_WIDTH = 45


def run(app: App, values: Values, arguments: list[str]) -> int:
    """List what fits the term, in the registry's order."""
    term = arguments[0]
    query: dict[str, Any] = {"term": term, "filters": filters(values.items("filter"))}
    if values.given("limit"):
        query["limit"] = values.number("limit")
    found = app.client.call("GET", "/images/search", query, headers=header_for(term)) or []
    fields = {
        "Name": Field("NAME", lambda row: row.get("name", "")),
        "Description": Field("DESCRIPTION", lambda row: _description(row, not values.on("no-trunc"))),
        "StarCount": Field("STARS", lambda row: str(row.get("star_count") or 0)),
        "IsOfficial": Field(
            "OFFICIAL",
            lambda row: "[OK]" if row.get("is_official") else "",
            in_json=lambda row: str(bool(row.get("is_official"))).lower(),
        ),
    }
    columns = ("Name", "Description", "StarCount", "IsOfficial")
    show(found, fields, columns, values.text("format"), "", "*registry.searchContext")
    return 0


def _description(row: dict[str, Any], short: bool) -> str:
    text = str(row.get("description") or "").replace("\n", " ").replace("\r", " ")
    if short:
        from sampan.cli.human import ellipsis

        return ellipsis(text, _DESCRIPTION_WIDTH)
    return text


COMMAND = Command(
    "search",
    "[OPTIONS] TERM",
    "Search Docker Hub for images",
    (
        Flag("filter", "filter", 'Show only what meets the conditions (e.g. "stars=10")', "f"),
        Flag("format", "string", "Output: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("limit", "int", "Show at most this many"),
        Flag("no-trunc", "bool", "Show descriptions in full"),
    ),
    run,
    least=1,
    most=1,
)
