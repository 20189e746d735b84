"""Out of memory: the kernel's word that it killed a process of a container, told at once (event `oom`).

Only a container with a memory limit of its own is watched; the record of the end tells of the others.
"""

from __future__ import annotations

import asyncio

from sampan.engine.core import Core, Live
from sampan.linux.cgroups import OomNotifier

_LOOKS_S = (0.0, 0.02, 0.1, 0.5)  # after the kernel's word, until its count has changed


class OomWatch:
    """Waits for the kernel's word about one run of a container."""

    def __init__(self, core: Core, live: Live, notifier: OomNotifier) -> None:
        self._core = core
        self._live = live
        self._notifier = notifier
        self._looking: asyncio.Task[None] | None = None
        asyncio.get_running_loop().add_reader(notifier.fileno(), self._told)

    def _told(self) -> None:
        self._notifier.drain()
        if self._looking is None or self._looking.done():
            look = asyncio.create_task(self._look(), name=f"watch oom {self._live.id[:12]}")
            self._looking = self._core.spawn(look)

    async def _look(self) -> None:
        live = self._live
        for pause in _LOOKS_S:
            await asyncio.sleep(pause)
            if live.oom is not self:
                return
            if self._notifier.kills() > 0:
                live.container.state.oom_killed = True
                self._core.write_down(live.container)
                self._core.publish(live, "oom")
                unwatch(live)
                return

    def close(self) -> None:
        """Listen no more."""
        asyncio.get_running_loop().remove_reader(self._notifier.fileno())
        self._notifier.close()


def watch(core: Core, live: Live) -> None:
    """Listen to the kernel about a running container that has a limit, until it has had something to say."""
    if live.container.host_config.memory <= 0 or live.oom is not None or live.container.state.oom_killed:
        return
    try:
        notifier = OomNotifier(core.cgroup(live.container))
    except OSError:
        return  # it has ended already, or no memory controller is there
    live.oom = OomWatch(core, live, notifier)


def unwatch(live: Live) -> None:
    """Listen no more."""
    watcher, live.oom = live.oom, None
    if watcher is not None:
        watcher.close()
