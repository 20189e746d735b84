"""Runs a command on a terminal, types lines at its prompt, and prints what a person would have seen there.

typist.py COMMAND LINE…
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.terminal import Terminal

PROMPT = b"/ # "
PATIENCE_S = 60
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


def main(command: str, *lines: str) -> int:
    """The command's exit status."""
    with Terminal(["bash", "-c", command], dict(os.environ, TERM="dumb"), 24, 200) as terminal:
        seen = b""
        for line in lines:
            seen += terminal.expect(PROMPT, PATIENCE_S)
            terminal.send(line.encode() + b"\n")
        status = terminal.wait(PATIENCE_S)
        seen += terminal.seen
    text = _CONTROL.sub("", seen.decode(errors="replace"))
    prompt = PROMPT.decode()
    text = prompt + text.partition(prompt)[2]  # a shell may greet before
    print(re.sub(f"({prompt}){{2,}}", prompt, text).rstrip("\n"))  # and prompt anew for a terminal's new size
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
