"""Signals that ask a server to stop."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, logging
from sampan.stopping import stop_on_signals

async def main():
    stop = asyncio.Event()
    stop_on_signals(asyncio.get_running_loop(), stop, logging.getLogger("x"))
    print("up", flush=True)
    await stop.wait()
    print("asked", flush=True)
    await asyncio.sleep(60 if WAITS else 0)

asyncio.run(main())
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_one_asks_and_three_force(signum: int) -> None:
    for waits, code in ((False, 0), (True, 130)):
        program = [sys.executable, "-c", PROGRAM.replace("WAITS", str(waits))]
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "up\n"
            process.send_signal(signum)
            assert process.stdout.readline() == "asked\n"
            for _ in range(2 if waits else 0):
                process.send_signal(signum)
                if process.poll() is None:
                    subprocess.run(["sleep", "0.1"], check=True)  # two at once are one
            assert process.wait(10) == code
