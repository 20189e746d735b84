"""SIGHUP: the configuration file read again, and what of it can change while running changed.

dockerd(8), "configuration reload behavior". All is checked before anything changes, in one step on the
event loop, so a request sees the old settings or the new ones.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from dataclasses import fields

from sampan import logs
from sampan.daemon.options import BY_KEY
from sampan.daemon.settings import Settings, settle
from sampan.engine import Engine
from sampan.engine.options import EngineOptions, known_runtimes
from sampan.http import ServerInfo
from sampan.registry import RegistryConfig

log = logging.getLogger("sampan.daemon")

_ENGINE = ("debug", "default_shm_size", "shutdown_timeout_s", "runtimes", "default_runtime")


def reload(settings: Settings, engine: Engine, info: ServerInfo) -> None:
    """Read the file of `settings` again and take over what can be.

    Raises:
        SampanError: the file is broken or contradicts the flags; nothing was changed.
    """
    fresh = settle(settings.flags, settings.engine.rootless)
    changed = []
    if fresh.log_level != settings.log_level:
        settings.log_level = fresh.log_level
        logs.set_level(fresh.log_level)
        changed.append("log-level")
    options, now = settings.engine, fresh.engine
    for name in _ENGINE:
        if getattr(options, name) != getattr(now, name):
            setattr(options, name, getattr(now, name))
            changed.append(name.removesuffix("_s").replace("_", "-"))
    if options.labels != now.labels:
        options.labels[:] = now.labels  # the API's copy is the same list
        changed.append("labels")
    if fresh.registry != settings.registry:
        changed += [
            _REGISTRY.get(field.name, field.name.replace("_", "-"))
            for field in fields(RegistryConfig)
            if getattr(settings.registry, field.name) != getattr(fresh.registry, field.name)
        ]
        settings.registry = fresh.registry
        engine.images.registries.reload(fresh.registry)
    info.debug = settings.log_level == "debug"
    later = _for_the_next_start(settings, fresh)
    if later:
        log.warning("SIGHUP: only the next start takes over: %s", ", ".join(later))
    log.info("SIGHUP: reloaded %s: %s", fresh.config_file, ", ".join(changed) or "nothing changed")
    engine.events.publish("daemon", "reload", engine.id, _attributes(options, fresh.registry))


_REGISTRY = {"insecure": "insecure-registries", "mirrors": "registry-mirrors"}


def _for_the_next_start(settings: Settings, fresh: Settings) -> list[str]:
    """The keys of the file that have changed and that are not read again before the next start."""
    before, settings.file = settings.file, fresh.file
    names = (name for name in BY_KEY if not BY_KEY[name].reload)
    return [name for name in names if before.get(name) != fresh.file.get(name)]


def _attributes(options: EngineOptions, registry: RegistryConfig) -> dict[str, str]:
    """What the event tells: every setting that a reload can change, as dockerd writes them."""
    return {
        "name": os.uname().nodename,
        "debug": json.dumps(options.debug),
        "labels": _list(options.labels),
        "live-restore": "true",
        "insecure-registries": _list(registry.insecure),
        "registry-mirrors": _list(registry.mirrors),
        "max-concurrent-downloads": str(registry.max_concurrent_downloads),
        "max-concurrent-uploads": str(registry.max_concurrent_uploads),
        "max-download-attempts": str(registry.max_download_attempts),
        "default-runtime": options.default_runtime,
        "runtimes": " ".join(f"{name}:{words[0]}" for name, words in sorted(known_runtimes(options).items())),
        "default-shm-size": str(options.default_shm_size),
        "shutdown-timeout": str(options.shutdown_timeout_s),
    }


def _list(texts: Iterable[str]) -> str:
    return json.dumps(list(texts), separators=(",", ":"))
