"""`sampan completion bash|fish|zsh`, and the hidden commands that their scripts ask."""

from __future__ import annotations

from sampan.cli.app import line, out, warn
from sampan.cli.failures import program
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def _script(shell: str) -> Command:
    def action(app: App, values: Values, arguments: list[str]) -> int:
        """Print the script."""
        from sampan.cli.completing.scripts import script

        out(script(shell, program(), not values.on("no-descriptions")))
        return 0

    return Command(
        f"completion {shell}",
        "",
        f"Generate the autocompletion script for {shell}",
        (Flag("no-descriptions", "bool", "Show values without a word about each"),),
        action,
        most=0,
    )


def _answer(descriptions: bool) -> Command:
    def action(app: App, values: Values, arguments: list[str]) -> int:
        """Print what the last word could become."""
        from sampan.cli.completing.answers import complete

        found, bits = complete(arguments)
        for value, about in found:
            line(f"{value}\t{about}" if about and descriptions else value)
        line(f":{bits}")
        warn(f"Completion ended with bits: {bits}")
        return 0

    return Command("__complete", "COMMAND-LINE", "What could follow", None, action)


COMMANDS = {
    "bash": _script("bash"),
    "fish": _script("fish"),
    "zsh": _script("zsh"),
    "complete": _answer(True),
    "complete without descriptions": _answer(False),
}
