"""`docker create`: a request becomes a container, or nothing at all.

The record in the database comes last: until it is there, every step is undone on failure and, after a crash,
swept away at the next start-up as belonging to nobody.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import time
from contextlib import ExitStack

from sampan.engine import egress, endpoints, health, log_config, mountpoints, ports, rootless
from sampan.engine.core import Core, Live, in_thread
from sampan.engine.errors import NameInUse
from sampan.engine.metrics import timed
from sampan.engine.model import (
    Container,
    ContainerConfig,
    EndpointSettings,
    HostConfig,
    MountPoint,
    RestartPolicy,
)
from sampan.engine.names import check_name, random_name
from sampan.engine.options import runtime_words
from sampan.engine.signals import parse_signal
from sampan.engine.sources import fill_volumes, image_of
from sampan.engine.spec import storage_size, validate_host_config
from sampan.errors import InvalidParameter, NotFound, SampanError
from sampan.images import Image
from sampan.linux import beneath
from sampan.linux.cgroups import features
from sampan.oci.image import ImageConfig, Platform, local_architecture
from sampan.oci.platforms import satisfies, shown


@timed("create")
async def create(
    core: Core,
    name: str | None,
    config: ContainerConfig,
    host_config: HostConfig,
    platform: Platform | None = None,
    caller: mountpoints.Caller | None = None,
    networks: dict[str, EndpointSettings] | None = None,
    temporary: bool = False,
    image_volumes: bool = True,
) -> tuple[Live, list[str]]:
    """Make a container.

    Args:
        name: the wanted name, with or without `/` in front; None for a random one.
        config: as the client sent it; it is completed in place from the image.
        host_config: as the client sent it; defaults are filled in.
        platform: what the image must be for, when that matters.
        caller: uid and gid of who asks, where they are known.
        networks: the networks to be in, where that is said; else the one of the network mode.
        temporary: the next daemon removes it, should this one not come to that.
        image_volumes: whether the image's VOLUMEs are mounted.

    Returns:
        The container, and warnings for the user.

    Raises:
        SampanError: with Docker's status; nothing is left behind.
    """
    name = check_name(name) if name else None
    for other in core.containers.values():
        if name is not None and other.container.name == name:
            raise NameInUse(name, other.id)
    if not config.image:
        raise InvalidParameter("config.Image must name the image to run")
    egress.take_label(config, host_config)
    image = core.images.resolve(config.image, platform)
    merge(config, image.config, image_volumes)
    path, args = command_line(config)
    container = Container(
        id=secrets.token_hex(32),
        name=name or "",
        created_at_ns=time.time_ns(),
        image_id=image.id,
        config=config,
        host_config=host_config,
        path=path,
        args=args,
        driver=core.driver.name,
        to_be_removed=temporary,
    )
    try:
        warnings = _complete(core, container)
        endpoints.complete(core, container, networks or {})
        container.mounts = mountpoints.collect(
            config, host_config, lambda text: core.get(text).container, caller
        )
        for point in container.mounts:
            if point.type == "image" and not point.image_id:
                point.image_id = point.source = image_of(core, point)
    except NotFound as error:  # clients take a 404 here for a missing image, and go to pull it
        raise InvalidParameter(error.message) from None
    host = Platform("linux", local_architecture())
    if platform is None and image.architecture and not satisfies(image.platform, host):
        warnings.append(
            f"The requested image's platform ({shown(image.platform)}) does not match the detected host"
            f" platform ({shown(host)}) and no specific platform was requested"
        )
    with core.build_images.holding(image.id):
        await in_thread(lambda: _make(core, container, image))
        live = Live(container)
        core.containers[container.id] = live
    core.publish(live, "create")
    return live, warnings


def merge(config: ContainerConfig, image: ImageConfig, volumes: bool = True) -> None:
    """Fill what the user left open from the image's config, as Docker's `--entrypoint` and `-e` promise."""
    config.user = config.user or image.user
    config.working_dir = config.working_dir or image.working_dir
    config.stop_signal = config.stop_signal or image.stop_signal or None
    if config.entrypoint is None:
        config.entrypoint = list(image.entrypoint) if image.entrypoint else None
        if not config.cmd:
            config.cmd = list(image.cmd) if image.cmd else None
    elif config.entrypoint in ([], [""]):
        config.entrypoint = None
    given = {text.partition("=")[0] for text in config.env or []}
    inherited = [text for text in image.env or [] if text.partition("=")[0] not in given]
    config.env = inherited + list(config.env or [])
    theirs = {key: value for key, value in (image.labels or {}).items() if key != ports.LABEL}
    config.labels = {**theirs, **config.labels}  # whose firewall rules decide is not for an image to say
    if image.exposed_ports:
        config.exposed_ports = {**{port: {} for port in image.exposed_ports}, **(config.exposed_ports or {})}
    if image.volumes and volumes:
        config.volumes = {**{path: {} for path in image.volumes}, **(config.volumes or {})}
    config.healthcheck = health.merge(config.healthcheck, image.healthcheck)
    if config.shell is None and image.shell:
        config.shell = list(image.shell)


def command_line(config: ContainerConfig) -> tuple[str, list[str]]:
    """The program and its arguments.

    Raises:
        InvalidParameter: neither the image nor the user names one.
    """
    words = [*(config.entrypoint or []), *(config.cmd or [])]
    if not words:
        raise InvalidParameter("no command specified")
    if not words[0]:
        raise InvalidParameter("the command's name is empty")
    return words[0], words[1:]


def _complete(core: Core, container: Container) -> list[str]:
    config, host_config = container.config, container.host_config
    host_config.network_mode = _network_mode(core, host_config.network_mode, config.network_disabled)
    egress.check(host_config)
    if host_config.network_mode.startswith("container:") and config.hostname:
        raise InvalidParameter("conflicting options: hostname and the network mode")
    if not config.hostname and not host_config.network_mode.startswith("container:"):
        on_host = host_config.network_mode == "host" or host_config.uts_mode == "host"
        config.hostname = socket.gethostname() if on_host else container.id[:12]
    host_config.shm_size = host_config.shm_size or core.options.default_shm_size
    host_config.ipc_mode = host_config.ipc_mode or "private"
    if host_config.init is None and core.options.init:
        host_config.init = True
    host_config.ulimits = host_config.ulimits or list(core.options.default_ulimits) or None
    host_config.runtime = host_config.runtime or core.options.default_runtime
    runtime_words(core.options, host_config.runtime)  # refused now if there is none of the name
    host_config.restart_policy.name = host_config.restart_policy.name or "no"
    check_restart_policy(host_config.restart_policy)
    if host_config.auto_remove and host_config.restart_policy.name != "no":
        raise InvalidParameter("can't create 'AutoRemove' container with restart policy")
    log_config.complete(host_config.log_config, core.options)
    if config.stop_signal:
        parse_signal(config.stop_signal)
    health.check(config.healthcheck, config.health_on_failure)
    if core.options.rootless:
        rootless.check(config, host_config, bool(core.options.cgroup_parent))
    warnings = validate_host_config(config, host_config, features(bool(core.options.cgroup_parent)))
    if config.working_dir:
        config.working_dir = os.path.normpath(config.working_dir).replace("//", "/")
    return warnings


def _network_mode(core: Core, mode: str, disabled: bool | None) -> str:
    if mode in ("", "default"):
        return "none" if disabled else "bridge"
    if mode.startswith("container:"):
        return "container:" + core.get(mode.removeprefix("container:")).id
    return core.networks.get(mode).name


def check_restart_policy(policy: RestartPolicy) -> None:
    """Refuse a policy that is none.

    Raises:
        InvalidParameter: in Docker's words.
    """
    if policy.name not in ("no", "always", "unless-stopped", "on-failure"):
        raise InvalidParameter(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', "
            "'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidParameter(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        )
    if policy.maximum_retry_count < 0:
        raise InvalidParameter("invalid restart policy: maximum retry count cannot be negative")


def _make(core: Core, container: Container, image: Image) -> None:
    core.images.check_here(image.id)
    with ExitStack() as undo:
        core.driver.create_container(container.id, image.top_layer, storage_size(container.host_config))
        undo.callback(core.driver.remove_container, container.id)
        if container.config.working_dir != image.config.working_dir:  # the image's own is there, mostly
            _make_working_directory(core, container)
        directory = core.directory(container.id)
        directory.mkdir(mode=0o710, parents=True)
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        undo.callback(core.volumes.forget, container.id)
        for point in container.mounts:
            if point.type == "volume":
                _give_volume(core, container, point, undo)
        fill_volumes(core, container)
        _record(core, container)
        undo.pop_all()


def _make_working_directory(core: Core, container: Container) -> None:
    """Make the directory that `-w` names, so that it is there for `docker cp` before the first start.

    Raises:
        SampanError: something else is there, in Docker's words.
    """
    path = container.config.working_dir
    root = os.open(core.driver.mount(container.id), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.close(beneath.make_directory(root, path))
    except NotADirectoryError:
        raise SampanError(f"Cannot mkdir: {path} is not a directory") from None
    finally:
        os.close(root)
        core.driver.unmount(container.id)


def _give_volume(core: Core, container: Container, point: MountPoint, undo: ExitStack) -> None:
    """Find or make the volume of a mount point, and let the container refer to it."""
    if point.source:  # of another container's, by --volumes-from
        core.volumes.refer(point.name, container.id)
        return
    anonymous = not point.name
    volume, new = core.volumes.create(
        point.name or None, point.driver, point.driver_options, point.labels, container.id
    )
    if anonymous:
        undo.callback(core.volumes.remove, volume.name, but_for=container.id)
    if new:
        core.events.publish("volume", "create", volume.name, {"driver": volume.driver})
    point.name, point.source = volume.name, str(volume.mountpoint)


def _record(core: Core, container: Container) -> None:
    if container.name:
        core.store.insert(container)
        return
    for attempt in range(32):
        container.name = random_name(attempt)
        try:
            core.store.insert(container)
        except NameInUse:
            continue
        return
    container.name = container.id[:12]
    core.store.insert(container)
