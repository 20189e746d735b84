"""`sampan install-help`: the program `sampan.manual` takes this one's place."""

from __future__ import annotations

import os
import sys

from sampan.cli.autostart import search_path
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Put them there, or take them away."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    words = [sys.executable, "-m", "sampan.manual", "remove" if values.on("remove") else "install"]
    if values.text("dir"):
        words.append(values.text("dir"))
    sys.stdout.flush()
    os.execve(words[0], words, {**os.environ, "PYTHONPATH": search_path(root)})


COMMAND = Command(
    "install-help",
    "[OPTIONS]",
    "Put manual pages and shell completion where they are looked for",
    (
        Flag("dir", "string", "Folder instead of /usr/local/share (root) or ~/.local/share"),
        Flag("remove", "bool", "Take them away"),
    ),
    run,
    most=0,
)
