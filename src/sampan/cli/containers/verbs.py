"""Commands that post one verb for each container: stop and restart with a time, pause and unpause plain."""

from __future__ import annotations

from sampan.cli.client import escape
from sampan.cli.containers.each import for_each
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def _post(app: App, verb: str, containers: list[str], query: dict[str, object] | None = None) -> int:
    def one(container: str) -> None:
        app.client.request("POST", f"/containers/{escape(container)}/{verb}", query).read()

    return for_each(containers, one)


def ending(verb: str, summary: str) -> Command:
    """The command for a verb that ends the container's process: a signal, and a time until SIGKILL."""

    def run(app: App, values: Values, arguments: list[str]) -> int:
        query: dict[str, object] = {"signal": values.text("signal") or None}
        if values.given("time") and values.given("timeout"):
            raise ValueError("conflicting options: cannot specify both --timeout and --time")
        for flag in ("time", "timeout"):
            if values.given(flag):
                query["t"] = values.number(flag)
        return _post(app, verb, arguments, query)

    return Command(
        verb,
        "[OPTIONS] CONTAINER [CONTAINER...]",
        summary,
        (
            Flag("signal", "string", "Signal to send to the container", "s"),
            Flag("time", "int", "Seconds to wait before killing the container", hidden=True),
            Flag("timeout", "int", "Seconds to wait before killing the container", "t"),
        ),
        run,
        least=1,
        aliases=(f"container {verb}", verb),
    )


def plain(verb: str, summary: str) -> Command:
    """The command for a verb without options."""

    def run(app: App, _: Values, arguments: list[str]) -> int:
        return _post(app, verb, arguments)

    return Command(
        verb,
        "CONTAINER [CONTAINER...]",
        summary,
        (),
        run,
        least=1,
        aliases=(f"container {verb}", verb),
    )
