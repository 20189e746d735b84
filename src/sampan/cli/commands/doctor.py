"""`sampan doctor`: the program that examines kernel and machine takes the place of this one."""

from __future__ import annotations

import os
import sys

from sampan.cli.autostart import search_path
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Become the program."""
    if app.options.given("host"):
        raise CommandError("doctor examines the machine that it runs on: leave out --host", 125)
    if values.text("config") and values.text("data-root"):
        raise CommandError("--config reads a file and tries nothing, so that it takes no --data-root", 125)
    words = [sys.executable, "-m", "sampan.doctor"]
    for name in ("config", "data-root"):
        if values.text(name):
            words += [f"--{name}={values.text(name)}"]
    if values.on("json"):
        words.append("--json")
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    sys.stdout.flush()
    os.execve(words[0], words, {**os.environ, "PYTHONPATH": search_path(root)})


def _named(name: str) -> Command:
    return Command(
        name,
        "[OPTIONS]",
        "Examine whether this machine can run containers",
        (
            Flag("config", "string", "Judge this kernel configuration, plain or gzip"),
            Flag("data-root", "string", "Data root to try things in (default: the daemon's)"),
            Flag("json", "bool", "Show the report as JSON"),
        ),
        run,
        most=0,
        aliases=("doctor", "check-config"),
        failure=125,
        details=(
            "Reads the kernel's configuration, then tries what a container's start does: namespaces,\n"
            "mounts, cgroups, bridge, firewall, seccomp. It needs no daemon and leaves nothing behind.\n"
            "Exits with 0 when the machine is fit, with 1 when it is not, with 125 when it cannot tell."
        ),
    )


COMMANDS = {name: _named(name) for name in ("doctor", "check-config")}
