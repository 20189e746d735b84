"""A server's own log: one line an event on stderr, with time, level and message."""

from __future__ import annotations

import logging
import sys
import time

LOG_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}


class _Formatter(logging.Formatter):
    """`2025-01-31T12:00:00.123Z INFO  sampan.http: text`; a traceback only while debugging."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        message = record.getMessage().replace("\n", "\\n")
        line = f"{stamp}.{int(record.msecs):03d}Z {record.levelname:<7} {record.name}: {message}"
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + self.formatException(record.exc_info)
        return line


def set_up(level: str) -> None:
    """Log to stderr from `level` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    logging.basicConfig(level=LOG_LEVELS[level], handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.raiseExceptions = False


def set_level(level: str) -> None:
    """Change the level of a running server."""
    logging.getLogger().setLevel(LOG_LEVELS[level])
