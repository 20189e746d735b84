"""`docker rm` and `--rm`: a container is forgotten in one transaction; its files go after the answer.

So a name is free at the moment the removal returns, and no container is ever half removed (Docker's state
`dead`): before the transaction it is all there, afterwards it is gone, and what is left belongs to nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil

from sampan.engine import ending, links, restarting
from sampan.engine.core import Core, Live, check_not_removing, in_thread
from sampan.engine.metrics import timed
from sampan.engine.model import Container
from sampan.errors import Conflict, NotFound, SampanError

_DRAIN_S = 5.0  # how long a removed container's last lines may take to a remote log driver
_log = logging.getLogger("sampan.engine")


async def remove(core: Core, live: Live, force: bool = False, volumes: bool = False) -> None:
    """Remove a container; with `force` also a running one, and one that somebody else is removing.

    Args:
        volumes: remove its anonymous volumes as well.

    Raises:
        Conflict: it runs and `force` is not given, or another removal is under way.
    """
    while force and live.removal is not None:
        await asyncio.shield(live.removal)
        if live.removed.is_set():
            return
    _check_removable(live, force)
    if not force:
        async with live.lock:
            _check_removable(live, force)
            await remove_locked(core, live, volumes)
        return
    live.begin_removal()  # nobody starts it from here on, also not who holds the lock now
    try:
        _write_down_intent(core, live)
        if live.process is not None:
            await ending.kill_and_wait(core, live, live.process)
        async with live.lock:
            restarting.call_off(core, live)
            if live.process is not None:  # who held the lock had begun to start it
                await ending.kill_and_wait(core, live, live.process)
            await _forget(core, live, volumes)
    except BaseException:
        live.end_removal()
        raise


def _check_removable(live: Live, force: bool) -> None:
    check_not_removing(live)
    if live.container.state.active and not force:
        status = live.container.state.status
        raise Conflict(
            f'cannot remove container "{live.container.name}": container is {status}: '
            + ("unpause and then stop" if status == "paused" else "stop")
            + " the container before removing or force remove"
        )


def _write_down_intent(core: Core, live: Live) -> None:
    """Let the next daemon finish the removal, where a restart policy would bring the container back."""
    container = live.container
    if container.state.active and container.host_config.restart_policy.name not in ("", "no"):
        container.stopped_by_user = container.to_be_removed = True
        core.write_down(container)


async def auto_remove(core: Core, live: Live) -> None:
    """As `--rm` asks for, at the end of a run."""
    try:
        await remove_locked(core, live, volumes=True)
    except (SampanError, OSError) as error:
        _log.error("cannot remove container %s after its end: %s", live.id[:12], error)


async def remove_locked(core: Core, live: Live, volumes: bool) -> None:
    """Remove a container that does not run, unless somebody else does."""
    if live.removing or core.containers.get(live.id) is not live:
        return
    live.begin_removal()
    try:
        await _forget(core, live, volumes)
    except BaseException:
        live.end_removal()  # so that the removal can be tried again
        raise


@timed("delete")
async def _forget(core: Core, live: Live, volumes: bool) -> None:
    """The name is free and the record gone at the return, the rest follows."""
    live.drop_parked()
    if volumes and any(point.type == "volume" for point in live.container.mounts):
        if live.settled is not None:
            await live.settled  # the volumes are in use until then
        await in_thread(lambda: _remove_anonymous_volumes(core, live.container))
    core.store.delete(live.id)
    core.volumes.forget(live.id)
    del core.containers[live.id]
    links.forget(core, live.container)
    live.removed.set()
    live.tell_ended()
    if live.removal is not None:
        live.removal.set_result(None)  # and it stays: a container is removed once
    core.publish(live, "destroy")
    settled = live.settled

    async def sweep() -> None:
        if settled is not None:
            await settled
        await core.shipping.drained(live.id, _DRAIN_S)
        try:
            await in_thread(lambda: discard(core, live.container))
        except (SampanError, OSError) as error:
            _log.error("removing the files of container %s: %s", live.id[:12], error)

    live.settled = core.spawn(asyncio.create_task(sweep(), name=f"sweep {live.id[:12]}"))


def discard(core: Core, container: Container) -> None:
    """Delete a container's files: its writable layer and its directory."""
    ending.release(core, container)
    core.driver.remove_container(container.id)
    shutil.rmtree(core.directory(container.id), ignore_errors=True)
    core.driver.purge_trash()
    core.volumes.purge_trash()
    try:
        core.images.resolve(container.image_id)
    except NotFound:
        core.images.collect_garbage()  # the image was removed by force before; its layers are free now


def _remove_anonymous_volumes(core: Core, container: Container) -> None:
    """Remove the nameless volumes that were made for this container and that no other one uses."""
    for point in container.mounts:
        if point.type != "volume":
            continue
        with contextlib.suppress(Conflict, NotFound):
            volume = core.volumes.get(point.name)
            if volume.anonymous:
                core.volumes.remove(volume.name, but_for=container.id)
                core.events.publish("volume", "destroy", volume.name, {"driver": volume.driver})
