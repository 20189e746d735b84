"""What a daemon imports only when somebody asks it for what few daemons are asked for."""

from __future__ import annotations

import importlib

REST = (
    "h11",
    "sampan.building",
    "sampan.dockerfile",
    "sampan.http.h11_protocol",
    "sampan.images.importing",
    "sampan.images.pull",
    "sampan.images.push",
    "sampan.images.save",
    "urllib3",
)


def load_rest() -> None:
    """Import all of it: for a process whose forks are daemons."""
    for name in REST:
        importlib.import_module(name)
    importlib.import_module("sampan.api.app").rest()
