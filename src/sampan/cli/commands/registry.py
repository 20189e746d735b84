"""`sampan registry serve` and `gc`: the registry's own program takes the place of this one."""

from __future__ import annotations

import os
import sys

from sampan.cli.autostart import search_path
from sampan.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def _becoming(command: str) -> Command:
    def run(app: App, values: Values, arguments: list[str]) -> int:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
        environment = {**os.environ, "PYTHONPATH": search_path(root)}
        sys.stdout.flush()
        words = [sys.executable, "-m", "sampan.registry.server", command, *arguments]
        os.execve(words[0], words, environment)

    summary = {
        "serve": "Serve a registry: push, pull, search and look at images",
        "gc": "Remove from a registry what no manifest names any more",
    }[command]
    return Command(f"registry {command}", "[OPTIONS]", summary, None, run)


COMMANDS = {name: _becoming(name) for name in ("serve", "gc")}
