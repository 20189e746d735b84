"""Start the machine's daemon, from a process of its own: a program with threads must not fork (fork(2))."""

from __future__ import annotations

import asyncio
import os
import sys

from sampan.cli.autostart import search_path, start_daemon
from sampan.cli.failures import CommandError
from sampan.cli.hosts import Host
from sampan.client.errors import ConnectionFailed


async def start(path: str) -> None:
    """Start the daemon at this socket and return once it answers.

    Raises:
        ConnectionFailed: we may not start it, or it did not come up.
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    starter = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "sampan.client.starting", path),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": search_path(root)},
    )
    try:
        _, said = await starter.communicate()
    except asyncio.CancelledError:
        starter.kill()
        await starter.wait()
        raise
    if starter.returncode != 0:
        text = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise ConnectionFailed(text or "the sampan daemon did not start")


def main() -> int:
    """The starter: says on stderr what went wrong."""
    try:
        start_daemon(Host(f"unix://{sys.argv[1]}", automatic=True), FileNotFoundError(sys.argv[1]))
    except CommandError as error:
        print(error.message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
