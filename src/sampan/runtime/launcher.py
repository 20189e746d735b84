"""The warm process that forks monitors: a fresh interpreter, one thread, everything imported beforehand.

It is started by `client.Launcher` from a sealed copy of the interpreter, takes requests from its one socket,
and leaves when that closes. It cannot be dumped or traced by what it starts.
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
from typing import Any

from sampan.errors import InvalidParameter, SampanError
from sampan.linux import capabilities, cgroups, process, seccomp, syscalls
from sampan.runtime import bundle, monitor, wire
from sampan.runtime.monitor import Order
from sampan.runtime.protocol import LaunchRequest
from sampan.runtime.start import Timings, plan_container


def main(fd: int) -> None:
    """Serve launch requests from the socket `fd` until its other end closes."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl_name("sampan-launcher")
    process.reset_signals()
    for number in (
        signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD,
    ):  # fmt: skip
        signal.signal(number, signal.SIG_IGN)  # an ignored SIGCHLD reaps monitors
    syscalls.close_range(3, fd - 1) if fd > 3 else None
    syscalls.close_range(fd + 1)
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
        timings = Timings()
        daemon = socket.socket(fileno=fds[0])
        try:
            _launch(requests, message, daemon, fds[1:], timings)
        finally:
            daemon.close()
            for attached in fds[1:]:
                os.close(attached)


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
    """Read and check everything about a launch that can be, here rather than in the fork.

    What the fork only reads stays shared with the launcher's memory, and equal seccomp profiles are compiled
    once.

    Raises:
        SampanError: the configuration is refused.
    """
    config = bundle.load(request.bundle)
    spec = bundle.parse_config(config)
    if request.kind == "exec":
        process = bundle.parse_process(bundle.load_json(f"{request.rundir}/process.json"))
        plan = None
    else:
        if spec.process is None:
            raise InvalidParameter("config.json: process is missing")
        process = spec.process
        plan = plan_container(spec)
    profile = spec.seccomp
    filters = (seccomp.compile_filter(profile), seccomp.flags_of(profile)) if profile else None
    return Order(request, spec, process, plan, filters)


def _launch(
    requests: socket.socket,
    message: dict[str, Any],
    daemon: socket.socket,
    fds: list[int],
    timings: Timings,
) -> None:
    try:
        request = wire.decode_request(message)
        order = prepare(request)
        timings.mark("config read")
        pid = os.fork()
    except SampanError as error:
        wire.send(daemon, {"event": "failed", "stage": "config", "text": error.message, "errno": 0})
        return
    except (OSError, LookupError, TypeError, AttributeError, ValueError) as error:
        text = f"config.json: {type(error).__name__}: {error}"
        wire.send(daemon, {"event": "failed", "stage": "config", "text": text, "errno": 0})
        return
    if pid:
        return
    status = 1
    try:
        requests.close()
        timings.mark("monitor forked")
        status = monitor.main(order, daemon, fds, timings)
    except BaseException as error:
        text = f"the monitor failed: {type(error).__name__}: {error}"
        wire.send(daemon, {"event": "failed", "stage": "monitor", "text": text, "errno": 0})
    finally:
        os._exit(status)
