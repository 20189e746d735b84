"""A program that has our modules loaded and makes processes of them by forks; each would import for itself.

Imports are most of what a daemon's start and a command line cost, and tests start thousands. A fork here is
otherwise what `python -m MODULE` would be, and a child of whoever started this program (clone(2),
CLONE_PARENT), who sends orders through a socket; `support.spawning` is the other side. One order makes one
process; the end of the socket ends the program.

Usage: nursery.py FD PATH: the socket, and the folder to import `support` from.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import json
import os
import pickle
import pkgutil
import runpy
import socket
import sys
from collections.abc import Iterator
from typing import Any

MOST_FDS = 16
MOST_BYTES = 150_000  # a datagram's, below the kernel's default for a socket's buffer
LOADED = ("sampan.daemon.service", "sampan.daemon.settings", "sampan.registry.server")
# What a daemon imports only when it is asked for what few are asked for, beside `sampan.api.app.rest`.
SELDOM = (
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
TERMINAL = "sampan.cli.ui"  # imports textual; what has a terminal is no fork of ours
FREE_FD = 512  # out of the way of the numbers that descriptors are to have


def load() -> None:
    """Import what daemons, registries and command lines may need."""
    import sampan.cli
    from sampan.api import app

    for name in (*LOADED, *SELDOM, *_modules(sampan.cli.__path__, "sampan.cli.")):
        importlib.import_module(name)
    app.rest()
    gc.collect()
    gc.freeze()  # else the first search for garbage in each child copies every page


def _modules(path: Any, prefix: str) -> Iterator[str]:
    for found in pkgutil.walk_packages(path, prefix):
        if not found.name.endswith("__main__") and not found.name.startswith(TERMINAL):
            yield found.name


def next_child(orders: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """Make a process for each order; returns in the children, with the order and its descriptors.

    Returns:
        None in the program itself, at the end of the orders.
    """
    from sampan.linux import syscalls
    from sampan.linux.process import clone

    while True:
        try:
            data, fds, _, _ = socket.recv_fds(orders, MOST_BYTES, MOST_FDS)
        except KeyboardInterrupt:  # so the tests are over
            return None
        if not data:
            return None
        pid, pidfd = clone(syscalls.CLONE_PARENT)
        if pid == 0:
            return json.loads(data), fds
        os.close(pidfd)
        for fd in fds:
            os.close(fd)
        orders.send(str(pid).encode())


def become(order: dict[str, Any], fds: list[int], support: str) -> None:
    """Turn this fork into what `order` asks for: descriptors, directory, environment, session."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FREE_FD) for fd in fds]
    for fd in fds:
        os.close(fd)
    for fd, number in zip(high, order["fds"], strict=True):
        os.dup2(fd, number)
        os.close(fd)
    if order["session"]:
        os.setsid()
    os.chdir(order["directory"])
    os.environ.clear()
    os.environ.update(order["environment"])
    if order["before"]:
        sys.path.append(support)
        pickle.loads(bytes.fromhex(order["before"]))()  # from the test that started us
        sys.path.remove(support)


def main() -> None:
    """Serve orders; in a child, be the program."""
    orders, support = socket.socket(fileno=int(sys.argv[1])), sys.argv[2]
    sys.path.pop(0)  # this file's folder
    load()
    born = next_child(orders)
    orders.close()
    if born is None:
        return
    order, fds = born
    become(order, fds, support)
    module, *words = order["command"]
    sys.argv[1:] = words
    if module == "sampan.daemon" and (path := os.environ.get("SAMPAN_RECORD")):
        import sitecustomize

        sitecustomize.install(path)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
