"""The warm process that forks monitors: a fresh interpreter, one thread, everything imported beforehand.

It is started by `client.Launcher` from a sealed copy of the interpreter, takes requests from its one socket,
and leaves when that closes. It cannot be dumped or traced by what it starts.

A container's monitor is forked once its configuration was read, which it so inherits.
"""

from __future__ import annotations

import encodings.ascii
import encodings.latin_1
import encodings.utf_8  # noqa: F401  (codecs are looked up by import when first used)
import gc
import importlib
import importlib.machinery
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sampan.errors import InvalidParameter, SampanError
from sampan.linux import capabilities, cgroups, process, syscalls
from sampan.runtime import bundle, monitor, wire
from sampan.runtime.monitor import Order
from sampan.runtime.protocol import LaunchRequest
from sampan.runtime.start import Timings, plan_container
from sampan.runtime.targets import filters_of

T = TypeVar("T")


def main(fd: int) -> None:
    """Serve launch requests from the socket `fd` until its other end closes."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl_name("sampan-launcher")
    process.reset_signals()
    for number in (
        signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD,
    ):  # fmt: skip
        signal.signal(number, signal.SIG_IGN)  # an ignored SIGCHLD reaps monitors
    process.close_all_but([fd])
    requests = socket.socket(fileno=fd)
    requests.set_inheritable(False)
    wire.widen(requests)
    _warm_up()
    forget_imports()
    gc.disable()
    gc.freeze()
    while True:
        message, fds = wire.receive(requests)
        if message is None:
            return
        _launch(requests, message, fds)
        for given in fds:
            os.close(given)


def _warm_up() -> None:
    """Look up what never changes and import what is imported late, so that no monitor has to."""
    manager = cgroups.manager_for("/sampan")
    if manager.version == 2:
        importlib.import_module("sampan.linux.device_filter")
    time.strftime("%Y", time.gmtime())
    capabilities.last_cap()


def forget_imports() -> None:
    """Let nothing be imported from files any more: what runs in a container's root would load the image's."""
    sys.path = []
    sys.path_hooks = []
    sys.path_importer_cache = {}
    sys.meta_path = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter]


def prepare(request: LaunchRequest) -> Order:
    """Read and check everything about a container that can be, here rather than in the fork.

    What the fork only reads stays shared with the launcher's memory, and equal seccomp profiles are compiled
    once.

    Raises:
        SampanError: the configuration is refused.
    """
    spec = bundle.parse_config(bundle.load(request.bundle))
    if spec.process is None:
        raise InvalidParameter("config.json: process is missing")
    if request.runtime:
        return Order(request, spec)  # the rest is the external runtime's business
    return Order(request, spec, plan_container(spec), filters_of(spec))


def _launch(requests: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
    timings = Timings()
    daemon = socket.socket(fileno=os.dup(fds[0]))
    with daemon:
        order = _checked(daemon, lambda: prepare(wire.decode_request(message)))
        if order is None:
            return
        timings.mark("config read")
        if os.fork():
            return
        requests.close()
        timings.mark("monitor forked")
        _be_monitor(order, daemon, fds, timings)


def _checked(daemon: socket.socket, make: Callable[[], T]) -> T | None:
    """What `make` gives; when it refuses, the daemon has been told why."""
    try:
        return make()
    except SampanError as error:
        text = error.message
    except (OSError, LookupError, TypeError, AttributeError, ValueError) as error:
        text = f"config.json: {type(error).__name__}: {error}"
    wire.send(daemon, {"event": "failed", "stage": "config", "text": text, "errno": 0})
    return None


def _be_monitor(order: Order, daemon: socket.socket, fds: list[int], timings: Timings) -> None:
    """The rest of a forked process's life."""
    status = 1
    try:
        os.close(fds[0])  # the daemon's connection, which `daemon` holds
        status = monitor.main(order, daemon, fds[1:], timings)
    except BaseException as error:
        text = f"the monitor failed: {type(error).__name__}: {error}"
        wire.send(daemon, {"event": "failed", "stage": "monitor", "text": text, "errno": 0})
    finally:
        os._exit(status)
