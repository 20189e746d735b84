"""`/debug/…`: what the daemon is doing, as long as debugging is on; there is no such page otherwise.

`/debug/vars` is Docker's (expvar's form); `/debug/stacks` takes the place of `/debug/pprof`, which is Go's.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import threading
import time

from sampan.engine import Engine
from sampan.errors import NotFound
from sampan.http import Request, Response, Routes, json_response, text
from sampan.introspection import stacks

routes = Routes()


def _check(request: Request) -> None:
    if not request.server.debug:
        raise NotFound("page not found")


@routes.get("/debug/stacks")
async def shown_stacks(request: Request) -> Response:
    """Every task and every thread, with where it is."""
    _check(request)
    return text("".join(f"{line}\n" for line in stacks()))


@routes.get("/debug/vars")
async def variables(request: Request) -> Response:
    """Counters."""
    _check(request)
    engine: Engine = request.engine
    used = resource.getrusage(resource.RUSAGE_SELF)
    running = sum(live.container.state.running for live in engine.containers.values())
    counters = {
        "cmdline": sys.orig_argv,
        "uptime_seconds": round(time.time() - engine.metrics.started_at, 3),
        "containers": len(engine.containers),
        "containers_running": running,
        "execs": sum(len(live.execs) for live in engine.containers.values()),
        "background": sorted(task.get_name() for task in engine.background),
        "threads": threading.active_count(),
        "file_descriptors": len(os.listdir("/proc/self/fd")) - 1,
        "events": engine.events.published,
        "event_listeners": engine.events.listeners,
        "gc_enabled": gc.isenabled(),
        "gc_objects": list(gc.get_count()),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        "memory_peak_bytes": used.ru_maxrss * 1024,
    }
    return json_response(counters)
