"""A daemon without root: in it goes, and what is different inside becomes settings."""

from __future__ import annotations

import os

from sampan.daemon.settings import Settings
from sampan.engine.options import CGROUP_PARENT
from sampan.errors import SampanError
from sampan.rootless.entering import enter, entered
from sampan.rootless.uplink import DNS


def arrange(settings: Settings) -> None:
    """Enter the user's namespaces, which begins this program anew; once inside, complete the settings.

    Raises:
        SampanError: the namespaces cannot be had, and why.
    """
    engine = settings.engine
    if os.geteuid() != 0:
        enter(engine.exec_root)
    inside = entered(engine.exec_root)
    assert inside is not None
    settings.keeper = inside.connection
    engine.rootless = True
    if not inside.cgroups:
        if engine.cgroup_parent != CGROUP_PARENT:
            raise SampanError(f"cgroup-parent: {inside.warnings[0]}")
        engine.cgroup_parent = ""
    engine.warnings += [f"WARNING: {text}" for text in inside.warnings]
    if inside.uplink and not engine.dns:
        engine.dns = [DNS]
