"""The command line: one small module per command; talks only HTTP to the daemon.

`sampan ps` has to feel like a compiled program, so nothing here imports what it may not need: argparse,
http.client, json, re, socket, typing and dataclasses stay out of the start path (a test watches it), and a
command's module is imported when that command is chosen.
"""

from __future__ import annotations


def main() -> None:
    """Entry point of the `sampan` command: run it and end the process with its exit code."""
    from sampan.cli.app import run_process

    run_process()


__all__ = ["main"]
