"""A server's own log: one line an event on stderr, with time, level and message."""

from __future__ import annotations

import json
import logging
import sys
import time

LOG_FORMATS = ("text", "json")
LOG_LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}


class _Json(logging.Formatter):
    """One JSON object a line, with dockerd's members `level`, `msg` and `time`, and `logger`."""

    _LEVELS = {number: name for name, number in LOG_LEVELS.items()} | {logging.WARNING: "warning"}

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "level": self._LEVELS.get(record.levelno, record.levelname.lower()),
            "logger": record.name,
            "msg": record.getMessage(),
            "time": f"{stamp}.{int(record.msecs):03d}Z",
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _Formatter(logging.Formatter):
    """`2025-01-31T12:00:00.123Z INFO  sampan.http: text`; a traceback only while debugging."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        message = record.getMessage().replace("\n", "\\n")
        line = f"{stamp}.{int(record.msecs):03d}Z {record.levelname:<7} {record.name}: {message}"
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + self.formatException(record.exc_info)
        return line


def set_up(level: str, form: str = "text") -> None:
    """Log to stderr from `level` on, in one of `LOG_FORMATS`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Formatter())
    logging.basicConfig(level=LOG_LEVELS[level], handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.raiseExceptions = False


def set_level(level: str) -> None:
    """Change the level of a running server."""
    logging.getLogger().setLevel(LOG_LEVELS[level])
