"""What the daemon's flags and `daemon.json` decide for the engine."""

from __future__ import annotations

import shutil
from dataclasses import field
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.engine.model import Ulimit
from sampan.errors import InvalidParameter

OWN_RUNTIME = "sampan"
CGROUP_PARENT = "/sampan"
_ALIASES = {"io.containerd.runc.v2": "runc"}  # the shim through which Docker has it
STOCK_RUNTIMES = ("runc", "crun")  # offered without a word where they are installed


@dataclass(slots=True)
class EngineOptions:
    """Roots and defaults; the names are dockerd's.

    Attributes:
        data_root: what must outlive a reboot.
        exec_root: what lives as long as the processes do (a tmpfs).
        cgroup_parent: the cgroup below which each container gets its own; "" where none can be had.
        rootless: the daemon's root is an ordinary user of the machine.
        default_shm_size: bytes of `/dev/shm` when a container does not say.
        log_opts: options of `log_driver` for containers that name none.
        runtimes: external OCI runtimes that were added, each as the words that start it.
        default_runtime: for containers that name none.
        shutdown_timeout_s: how long `--shutdown-containers` waits for a container that has no timeout itself.
    """

    data_root: Path
    exec_root: Path
    cgroup_parent: str = CGROUP_PARENT
    rootless: bool = False
    default_ulimits: list[Ulimit] = field(default_factory=list)
    default_shm_size: int = 64 * 1024 * 1024
    log_driver: str = "json-file"
    log_opts: dict[str, str] = field(default_factory=dict)
    dns: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_opts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    init: bool = False
    debug: bool = False
    shutdown_timeout_s: int = 15
    runtimes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    default_runtime: str = OWN_RUNTIME
    warnings: list[str] = field(default_factory=list)


def runtime_words(options: EngineOptions, name: str) -> tuple[str, ...]:
    """The words that start an external runtime; none for our own.

    Raises:
        InvalidParameter: there is none of this name (any more).
    """
    name = _ALIASES.get(name, name)
    if name == OWN_RUNTIME:
        return ()
    words = known_runtimes(options).get(name)
    if words is None:
        raise InvalidParameter(f"unknown or invalid runtime name: {name}")
    return words


def known_runtimes(options: EngineOptions) -> dict[str, tuple[str, ...]]:
    """Every external runtime that a container may have: those added, and the usual ones where installed."""
    stock = {name: (program,) for name in STOCK_RUNTIMES if (program := shutil.which(name)) is not None}
    return {**stock, **options.runtimes}
