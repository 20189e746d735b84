"""A container's log configuration: what it becomes at create, and what its monitor and drivers are told."""

from __future__ import annotations

import socket
from pathlib import Path

from sampan.engine.model import Container, LogConfig
from sampan.engine.options import EngineOptions
from sampan.logdrivers import options as log_options
from sampan.logdrivers import tags
from sampan.logdrivers.job import Job
from sampan.runtime import LogSpec


def complete(config: LogConfig, options: EngineOptions) -> None:
    """Fill in the daemon's driver and options, and refuse what is not offered.

    Raises:
        InvalidParameter: as Docker words it.
    """
    config.type = config.type or options.log_driver
    if config.type == options.log_driver:
        config.config = {**options.log_opts, **config.config}
    elif config.type in log_options.REMOTE:
        cached = {key: value for key, value in options.log_opts.items() if key.startswith("cache-")}
        config.config = {**cached, **config.config}
    log_options.check(config.type, config.config)


def readable(config: LogConfig) -> bool:
    """Whether `docker logs` has something to read."""
    if config.type not in log_options.REMOTE:
        return config.type != "none"
    return config.config.get("cache-disabled", "")[:1].lower() not in ("1", "t")


def log_path(directory: Path, container: Container) -> Path:
    """The file that the monitor writes; for a remote driver the cache, from which lines are sent on."""
    driver = container.host_config.log_config.type
    if driver == "local":
        return directory / "local-logs" / "container.log"
    if driver in log_options.REMOTE:
        return directory / "container-cached.log"
    return directory / f"{container.id}-json.log"


def info(container: Container) -> tags.Info:
    """What tags and drivers may tell of a container."""
    return tags.Info(
        container.id, container.name, container.image_id, container.config.image,
        " ".join([container.path, *container.args]), container.created_at_ns,
    )  # fmt: skip


def attributes(container: Container) -> dict[str, str]:
    """The labels and variables that go with each line."""
    return tags.attributes(
        container.host_config.log_config.config, container.config.labels, container.config.env or []
    )


def remote_job(path: Path, container: Container) -> Job | None:
    """What sends the lines on; None for a driver that keeps them here."""
    config = container.host_config.log_config
    if config.type not in log_options.REMOTE:
        return None
    options = dict(config.config)
    return Job(config.type, options, str(path), info(container), attributes(container), socket.gethostname())


def log_spec(path: Path, container: Container) -> LogSpec | None:
    """What the monitor needs to write the log; None for the driver `none`."""
    config = container.host_config.log_config
    if config.type == "none":
        return None
    size, files, compress = log_options.file_limits(config.type, config.config)
    buffer = log_options.file_buffer(config.type, config.config)
    if config.type != "json-file":
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return LogSpec(str(path), size, files, compress, {}, "local", buffer)
    extra = attributes(container)
    if tag := config.config.get("tag"):
        extra["tag"] = tags.render(tag, info(container))
    return LogSpec(str(path), size, files, compress, extra, "json-file", buffer)
