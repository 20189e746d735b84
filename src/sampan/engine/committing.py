"""`docker commit` and `docker export`: a container's files as an image, or as an archive."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from dataclasses import field
from typing import BinaryIO

from sampan.dataclasses import dataclass
from sampan.dockerfile import apply_changes
from sampan.engine.core import Core, Live, check_not_removing, in_thread
from sampan.engine.metrics import timed
from sampan.engine.model import ContainerConfig
from sampan.errors import Conflict
from sampan.images import Commit
from sampan.oci.image import ImageConfig
from sampan.storage import Snapshot, export_tar


@dataclass(slots=True)
class CommitRequest:
    """What `POST /commit` asks for.

    Attributes:
        name: what the image shall be called; None for no name.
        config: the new image's config where it differs from the container's; None: as the container's.
        changes: Dockerfile instructions that are applied to it.
        pause: whether a running container holds still while its files are copied.
    """

    name: str | None = None
    author: str = ""
    comment: str = ""
    pause: bool = True
    config: ContainerConfig | None = None
    changes: list[str] = field(default_factory=list)


@timed("commit")
async def commit(core: Core, live: Live, request: CommitRequest) -> str:
    """Make an image of what a container has changed; its id.

    A container that runs is frozen while its files are copied, not while the image is made of the copy.
    A client that goes away does not end the work half-way.

    Raises:
        Conflict: the container is dead, or about to be removed.
        InvalidParameter: a change that cannot be made, or a name that is none.
        NoSuchImage: the container's image has been removed.
    """
    _check_alive(live, "commit")
    container = live.container
    base = image_config(container.config)
    config = base if request.config is None else image_config(request.config)
    apply_changes(config, request.changes)
    inherit(config, base)
    details = Commit(config, request.author, request.comment, " ".join(container.config.cmd or []))
    name = core.images.check_name(request.name) if request.name else None
    result: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work() -> None:
        try:
            snapshot = await _snapshot(core, live, request.pause)

            def make() -> str:
                with snapshot:
                    return core.images.commit(snapshot, container.image_id, details, name)

            image_id = await in_thread(make)
        except BaseException as error:
            if not result.done():
                result.set_exception(error)
            return
        told = {"comment": request.comment, "imageID": image_id, "imageRef": name.familiar if name else ""}
        core.publish(live, "commit", **told)
        if not result.done():
            result.set_result(image_id)

    core.spawn(asyncio.create_task(work(), name="commit"))
    return await asyncio.shield(result)


async def _snapshot(core: Core, live: Live, pause: bool) -> Snapshot:
    async with live.lock:
        _check_alive(live, "commit")
        # Without a cgroup nothing can be paused: each file is as it was at some moment of the copy.
        if not pause or live.container.state.status != "running" or not core.cgroups_path(live.container):
            return await in_thread(lambda: core.driver.snapshot(live.id))
        manager = core.cgroup(live.container)

        def frozen() -> Snapshot:
            _unless_gone(manager.freeze)
            try:
                return core.driver.snapshot(live.id)
            finally:
                _unless_gone(manager.thaw)

        core.publish(live, "pause")
        try:
            return await in_thread(frozen)
        finally:
            core.publish(live, "unpause")


def _unless_gone(change: Callable[[], None]) -> None:
    """Change the freezer of a container that may be ending: without a cgroup it holds still by itself."""
    try:
        change()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def exporter(core: Core, live: Live) -> Callable[[BinaryIO], None]:
    """What writes a container's whole root file system as an archive, volumes left out.

    Raises:
        Conflict: the container is dead, or about to be removed.
    """
    _check_alive(live, "export")

    def write(out: BinaryIO) -> None:
        rootfs = core.driver.mount(live.id)
        try:
            export_tar(rootfs, out)
        finally:
            core.driver.unmount(live.id)
        core.publish(live, "export")

    return write


def _check_alive(live: Live, verb: str) -> None:
    if live.container.state.status == "dead":
        raise Conflict(f"You cannot {verb} container {live.id} which is Dead")
    if live.removing:
        raise Conflict(f"You cannot {verb} container {live.id} which is being removed")
    check_not_removing(live)


def image_config(config: ContainerConfig) -> ImageConfig:
    """The part of a container's config that an image keeps."""
    return ImageConfig(
        user=config.user,
        exposed_ports=dict(config.exposed_ports) if config.exposed_ports else None,
        env=list(config.env) if config.env else None,
        entrypoint=None if config.entrypoint is None else list(config.entrypoint),
        cmd=None if config.cmd is None else list(config.cmd),
        volumes=dict(config.volumes) if config.volumes else None,
        working_dir=config.working_dir,
        labels=dict(config.labels) if config.labels else None,
        stop_signal=config.stop_signal or "",
        stop_timeout=config.stop_timeout,
        healthcheck=config.healthcheck,
        on_build=list(config.on_build) if config.on_build else None,
        shell=list(config.shell) if config.shell else None,
    )


def inherit(config: ImageConfig, base: ImageConfig) -> None:
    """Fill what `config` leaves open from `base`, by the rules of Docker's commit."""
    config.user = config.user or base.user
    config.working_dir = config.working_dir or base.working_dir
    config.stop_signal = config.stop_signal or base.stop_signal
    config.exposed_ports = {**(base.exposed_ports or {}), **(config.exposed_ports or {})} or None
    config.volumes = {**(base.volumes or {}), **(config.volumes or {})} or None
    config.labels = {**(base.labels or {}), **(config.labels or {})} or None
    given = {text.partition("=")[0] for text in config.env or []}
    config.env = [
        *(config.env or []),
        *(text for text in base.env or [] if text.partition("=")[0] not in given),
    ] or None
    if not config.entrypoint:
        config.cmd = config.cmd or base.cmd
        config.entrypoint = base.entrypoint if config.entrypoint is None else config.entrypoint
    config.healthcheck = config.healthcheck or base.healthcheck
    config.shell = config.shell or base.shell
