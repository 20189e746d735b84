"""`sampan ui`: the engine on the whole terminal; see `sampan.cli.ui`."""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError
from sampan.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values

_MISSING = (
    "sampan ui needs the package textual: pip install 'sampan[ui]' "
    "(in a checkout: .venv/bin/pip install textual)"
)


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Show it until the user leaves."""
    if not (os.isatty(0) and os.isatty(1)):
        raise CommandError("sampan ui needs a terminal")
    client = app.client
    client.ping()  # what is wrong with the connection is said here, where it can be read
    try:
        from sampan.cli.ui.app import Ui
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise CommandError(_MISSING) from None
    Ui(client.host, tuple(words(app.options))).run()
    return 0


def words(options: Values) -> list[str]:
    """The options that name the daemon, for another `sampan`."""
    found = []
    for name in ("context", "host", "tlscacert", "tlscert", "tlskey"):
        if options.given(name):
            value = options.items(name)[-1] if name == "host" else options.text(name)
            found.append(f"--{name}={value}")
    found += [f"--{name}" for name in ("tls", "tlsverify") if options.on(name)]
    return found


COMMAND = Command(
    "ui",
    "",
    "Show the engine on the whole terminal",
    (),
    run,
    most=0,
    details=(
        "Containers, images, volumes and networks as tables that follow what happens; logs, figures with\n"
        "graphs, inspect, and a shell in a container. The keys are at the bottom of the screen."
    ),
)
