"""The warm process that forks monitors: a fresh interpreter, one thread, everything imported beforehand.

It is started by `client.Launcher` from a sealed copy of the interpreter, takes requests from its one socket,
and leaves when that closes. It cannot be dumped or traced by what it starts.
"""

from __future__ import annotations

import encodings.ascii
import encodings.latin_1
import encodings.utf_8  # noqa: F401  (codecs are looked up by import when first used)
import gc
import importlib.machinery
import json
import os
import signal
import socket
import sys
import time
from typing import Any

from sampan.errors import SampanError
from sampan.linux import capabilities, cgroups, process, seccomp, syscalls
from sampan.runtime import bundle, monitor, wire
from sampan.runtime.start import Timings

_FILTER_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
}
_CACHED_FILTERS = 64


class Filters:
    """Compiled seccomp programs by the JSON text they came from: most containers share one."""

    def __init__(self) -> None:
        self._programs: dict[str, tuple[bytes, int]] = {}

    def get(self, section: dict[str, Any] | None) -> tuple[bytes, int] | None:
        """The program and load flags of a `linux.seccomp` section; None for none.

        Raises:
            SampanError: for a section that cannot be compiled.
        """
        if not section:
            return None
        key = json.dumps(section)
        found = self._programs.get(key)
        if found is None:
            flags = 0
            for name in section.get("flags") or []:
                if name not in _FILTER_FLAGS:
                    raise SampanError(f"config.json: linux.seccomp: unknown flag {name}")
                flags |= _FILTER_FLAGS[name]
            if section.get("listenerPath"):
                raise SampanError("config.json: linux.seccomp.listenerPath is not supported")
            if len(self._programs) >= _CACHED_FILTERS:
                self._programs.pop(next(iter(self._programs)))
            found = self._programs[key] = (seccomp.compile_filter(section), flags)
        return found


def main(fd: int) -> None:
    """Serve launch requests from the socket `fd` until its other end closes."""
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl_name("sampan-launcher")
    process.reset_signals()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)  # an ignored SIGCHLD reaps monitors
    syscalls.close_range(3, fd - 1) if fd > 3 else None
    syscalls.close_range(fd + 1)
    requests = socket.socket(fileno=fd)
    requests.set_inheritable(False)
    wire.widen(requests)
    _warm_up()
    filters = Filters()
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
            _launch(requests, message, daemon, fds[1:], filters, timings)
        finally:
            daemon.close()
            for attached in fds[1:]:
                os.close(attached)


def _warm_up() -> None:
    """Look up what never changes and import what is imported late, so that no monitor has to."""
    manager = cgroups.manager_for("/sampan")
    if manager.version == 2:
        manager.exists()
    time.strftime("%Y", time.gmtime())
    capabilities.last_cap()


def forget_imports() -> None:
    """Let nothing be imported from files any more: what runs in a container's root would load the image's."""
    sys.path = []
    sys.path_hooks = []
    sys.path_importer_cache = {}
    sys.meta_path = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter]


def _launch(
    requests: socket.socket,
    message: dict[str, Any],
    daemon: socket.socket,
    fds: list[int],
    filters: Filters,
    timings: Timings,
) -> None:
    try:
        request = wire.decode_request(message)
        config = bundle.load(request.bundle)
        program = filters.get((config.get("linux") or {}).get("seccomp"))
        timings.mark("config read")
        pid = os.fork()
    except (SampanError, OSError, ValueError) as error:
        wire.send(daemon, {"event": "failed", "stage": "config", "text": str(error), "errno": 0})
        return
    if pid:
        return
    status = 1
    try:
        requests.close()
        timings.mark("monitor forked")
        status = monitor.main(request, config, program, daemon, fds, timings)
    except BaseException as error:
        text = f"the monitor failed: {type(error).__name__}: {error}"
        wire.send(daemon, {"event": "failed", "stage": "monitor", "text": text, "errno": 0})
    finally:
        os._exit(status)
