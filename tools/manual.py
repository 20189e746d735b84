"""Writes the reference of the command line in Markdown, from the commands themselves.

The pages for man(1) are `sampan.manual`'s.

    .venv/bin/python tools/manual.py FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from sampan import __version__  # noqa: E402  (the path comes first)
from sampan.cli.app import GLOBAL_FLAGS  # noqa: E402
from sampan.cli.flags import Flag, usage_line  # noqa: E402
from sampan.manual.pages import commands, head_of, more_of, shown  # noqa: E402


def markdown() -> str:
    """The whole reference as one document."""
    lines = ["# Command reference", "", f"Of Sampan {__version__}, written by `tools/manual.py`.", ""]
    lines += ["## sampan", "", "    sampan [OPTIONS] COMMAND", "", *_table(shown(list(GLOBAL_FLAGS)))]
    for name, command in commands():
        lines += [f"## sampan {name}", "", command.summary.rstrip(".") + ".", ""]
        lines += [f"    sampan {usage_line(command, name)}", ""]
        if command.details:
            lines += [*(f"    {line}".rstrip() for line in command.details.split("\n")), ""]
        if len(command.aliases) > 1:
            lines += ["The same: " + ", ".join(f"`sampan {one}`" for one in command.aliases) + ".", ""]
        lines += _table(shown(list(command.flags or ())))
    return "\n".join(lines).rstrip() + "\n"


def _table(flags: list[Flag]) -> list[str]:
    if not flags:
        return []
    rows = [f"| `{head_of(flag)}` | {more_of(flag)} |".replace("\n", " ") for flag in flags]
    return ["| option | |", "|---|---|", *rows, ""]


def main(words: list[str]) -> int:
    if len(words) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    Path(words[0]).write_text(markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
