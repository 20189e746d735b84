"""SIGTERM and SIGINT to a server: the first asks it to stop, the third ends it where it stands."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

_FORCED = 3


def stop_on_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, log: logging.Logger) -> None:
    """Set `stop` at the first signal; who sends three wants no clean end, and gets exit code 130."""
    received = 0

    def on_signal(signum: int) -> None:
        nonlocal received
        received += 1
        log.info("%s: stopping", signal.Signals(signum).name)
        stop.set()
        if received >= _FORCED:
            log.warning("forced to leave at once; the next start repairs what this leaves")
            os._exit(130)

    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, on_signal, signum)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
