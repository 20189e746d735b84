"""The engine: what Docker objects are and do, for the API above it."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from sampan.engine import ending, health, oom, recovery
from sampan.engine.core import Core, in_thread
from sampan.engine.profiles import apparmor
from sampan.errors import SampanError
from sampan.linux.cgroups import manager_for

_log = logging.getLogger("sampan.engine")


class Engine(Core):
    """Containers, images, networks and volumes of one daemon.

    `start` before the first request, `stop` at the end; between them the verbs' modules do the work.
    """

    async def start(self) -> None:
        """Repair what a crash left, adopt what lives, and be ready."""
        self.events.bind(asyncio.get_running_loop())
        for directory in (self.options.data_root / "containers", self.options.exec_root / "containers"):
            directory.mkdir(mode=0o710, parents=True, exist_ok=True)
        if apparmor.supported():
            try:
                await in_thread(apparmor.ensure)
            except SampanError as error:
                _log.error("%s", error)  # a container that needs it is refused in the same words
        await self.launcher.start()
        with contextlib.suppress(OSError):
            manager_for("/sampan")  # imports what this machine takes: no container is to wait for it
        await recovery.recover(self)

    async def stop(self, shutdown_containers: bool = False) -> None:
        """Let go: containers live on, unless they are to be stopped first."""
        self.leaving = True
        for live in self.containers.values():
            if live.restart is not None:
                live.restart.cancel()  # its state says `restarting`: the next daemon starts it
        for end_build in list(self.builds.values()):
            end_build()
        await health.leave(self)
        if shutdown_containers:
            await self._stop_containers()
        for task in list(self.background):
            if not task.get_name().startswith(("watch", "exec")):
                with contextlib.suppress(asyncio.CancelledError, TimeoutError):
                    async with asyncio.timeout(10):
                        await task
        for task in list(self.background):
            task.cancel()
        await asyncio.gather(*self.background, return_exceptions=True)
        for live in self.containers.values():
            live.drop_parked()
            oom.unwatch(live)
            if live.process is not None:
                live.process.close()
        await self.shipping.close()
        await self.launcher.close()

    async def _stop_containers(self) -> None:
        async def stop(container_id: str) -> None:
            live = self.containers[container_id]
            own = live.container.config.stop_timeout
            try:
                await ending.stop(self, live, self.options.shutdown_timeout_s if own is None else own)
            except SampanError as error:
                _log.warning("stopping container %s: %s", container_id[:12], error)

        running = [live.id for live in self.containers.values() if live.container.state.running]
        await asyncio.gather(*(stop(container_id) for container_id in running))

    def running_count(self) -> int:
        """How many containers have a process, or soon will again."""
        return sum(
            live.container.state.running or live.restart is not None for live in self.containers.values()
        )
