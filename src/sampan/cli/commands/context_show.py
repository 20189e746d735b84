"""`sampan context ls|show|inspect`: which contexts there are, and which one is in use."""

from __future__ import annotations

import os

from sampan.cli.app import line, warn
from sampan.cli.contexts import endpoints, store
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag
from sampan.cli.hosts import DEFAULT_CONTEXT, chosen_context, environment_host
from sampan.cli.human import ellipsis, natural
from sampan.cli.listing import Field
from sampan.cli.listing import show as show_list

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values

_COLUMNS = ("Name", "Description", "DockerEndpoint", "Error")
_MEMORY = "<IN MEMORY>"


def ls(app: App, values: Values, arguments: list[str]) -> int:
    """List the contexts, the current one marked; it is listed also when the store does not have it."""
    current = chosen_context(app.options, app.config)
    rows = [_row(endpoints.default_context(app.options), current)]
    rows[0]["Description"] = endpoints.DEFAULT_DESCRIPTION
    rows += [_row(one, current) for one in store.everyone()]
    if all(row["Name"] != current for row in rows):
        try:
            store.load(current)
            problem = ""
        except CommandError as error:
            problem = error.message
        rows.append(
            {"Name": current, "Description": "", "DockerEndpoint": "", "Error": problem, "Current": True}
        )
    rows.sort(key=lambda row: natural(row["Name"]))
    tabular = values.text("format") in ("", "table")

    def name(row: Any) -> str:
        return f"{row['Name']} *" if row["Current"] and tabular and not values.on("quiet") else row["Name"]

    def short(key: str, most: int) -> Field:
        return Field(key.upper(), lambda row: ellipsis(row[key], most) if tabular else row[key])

    fields = {
        "Current": Field(
            "<no value>",  # docker has no title for it
            lambda row: row["Current"],
        ),
        "Description": short("Description", 60),
        "DockerEndpoint": Field("DOCKER ENDPOINT", lambda row: row["DockerEndpoint"]),
        "Error": short("Error", 45),
        "Name": Field("NAME", name),
    }
    if values.on("quiet"):
        for row in rows:
            line(row["Name"])
        return 0
    show_list(rows, fields, _COLUMNS, values.text("format"), type_name="*formatter.clientContextContext")
    if environment_host() and not app.options.given("host") and not app.options.given("context"):
        variable = "SAMPAN_HOST" if os.environ.get("SAMPAN_HOST") else "DOCKER_HOST"
        warn(
            f"Warning: {variable} environment variable overrides the active context. To use a context, "
            f"either set the global --context flag, or unset {variable} environment variable."
        )
    return 0


def _row(context: store.Context, current: str) -> dict[str, Any]:
    return {
        "Name": context.name,
        "Description": context.description,
        "DockerEndpoint": context.host,
        "Error": "",
        "Current": context.name == current,
    }


def show(app: App, values: Values, arguments: list[str]) -> int:
    """Print the name of the context in use."""
    line(chosen_context(app.options, app.config))
    return 0


def inspect(app: App, values: Values, arguments: list[str]) -> int:
    """Print contexts as JSON or by a template."""
    from sampan.cli.commands.inspect import show as show_objects

    def fetch(name: str) -> tuple[str, Any]:
        context = endpoints.found(name, app.options)
        stored = name != DEFAULT_CONTEXT
        return "context", {
            **context.described(),
            "TLSMaterial": context.tls,
            "Storage": {
                "MetadataPath": store.meta_folder(name) if stored else _MEMORY,
                "TLSPath": store.tls_folder(name) if stored else _MEMORY,
            },
        }

    names = arguments or [chosen_context(app.options, app.config)]
    return show_objects(values.text("format"), names, fetch, ours=True)


COMMANDS = {
    "ls": Command(
        "context ls",
        "[OPTIONS]",
        "List contexts",
        (
            Flag("format", "string", "Output: 'table', 'table TEMPLATE', 'json' or a Go template"),
            Flag("quiet", "bool", "Show context names only", "q"),
        ),
        ls,
        most=0,
        aliases=("context ls", "context list"),
    ),
    "show": Command("context show", "", "Print the name of the current context", (), show, most=0),
    "inspect": Command(
        "context inspect",
        "[OPTIONS] [CONTEXT] [CONTEXT...]",
        "Display detailed information on one or more contexts",
        (Flag("format", "string", "Output: 'json' or a Go template", "f"),),
        inspect,
    ),
}
