"""`sampan logs`: what a container has printed."""

from __future__ import annotations

import sys

from sampan.cli.client import escape
from sampan.cli.flags import Command, Flag
from sampan.cli.moments import timestamp
from sampan.cli.streams import show_frames, show_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Write the log to our stdout and stderr, as it was written."""
    since, until = values.text("since"), values.text("until")
    container = arguments[0]
    query = {
        "stdout": True,
        "stderr": True,
        "follow": values.on("follow"),
        "timestamps": values.on("timestamps"),
        "details": values.on("details"),
        "tail": values.text("tail"),
        "since": timestamp(since, "since") if since else None,
        "until": timestamp(until, "until") if until else None,
    }
    sys.stdout.flush()
    client = app.client
    found = client.call("GET", f"/containers/{escape(container)}/json")
    answer = client.request("GET", f"/containers/{found['Id']}/logs", query)
    if found["Config"].get("Tty"):
        show_raw(answer.pieces())
    else:
        show_frames(answer.pieces())
    return 0


COMMAND = Command(
    "logs",
    "[OPTIONS] CONTAINER",
    "Fetch the logs of a container",
    (
        Flag("details", "bool", "Show the attributes that log options added"),
        Flag("follow", "bool", "Follow the output", "f"),
        Flag("since", "string", 'Show logs since a time ("2013-01-02T13:23:37Z") or for a duration ("42m")'),
        Flag("tail", "string", "Number of lines to show from the end", "n", "all"),
        Flag("timestamps", "bool", "Show timestamps", "t"),
        Flag("until", "string", 'Show logs before a time ("2013-01-02T13:23:37Z") or duration ("42m") ago'),
    ),
    run,
    least=1,
    most=1,
    aliases=("container logs", "logs"),
)
