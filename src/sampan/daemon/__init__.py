"""The composition root: flags, `daemon.json`, signals, wiring."""

from __future__ import annotations

from sampan.daemon.main import main

__all__ = ["main"]
