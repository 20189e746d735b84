"""What a look at the machine says, without trying: its control groups and its security modules."""

from __future__ import annotations

import os

from sampan.doctor.model import Group, Line
from sampan.engine.profiles import apparmor as profiles
from sampan.linux import apparmor
from sampan.linux.cgroups import Layout
from sampan.linux.cgroups import layout as layouts

_V2_CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")


def lines(mountinfo: str = "") -> tuple[list[Line], int]:
    """Lines about control groups and AppArmor, and the version of the former; 0 where there are none.

    Args:
        mountinfo: text in the place of /proc/self/mountinfo, for tests.
    """
    try:
        layout = layouts.parse(mountinfo) if mountinfo else layouts.detect()
    except OSError as error:
        return [
            Line("cgroup hierarchy", "nonexistent", False, True, (f"({error.strerror})",)),
            *_apparmor(),
        ], 0
    return [*(_v2(layout) if layout.version == 2 else _v1(layout)), *_apparmor()], layout.version


def only(found: list[Line]) -> Group:
    """The section where there is no configuration to show."""
    return Group("Generally Necessary", found)


def _v1(layout: Layout) -> list[Line]:
    controllers = {name: path for name, path in layout.hierarchies.items() if not name.startswith("name=")}
    places = {os.path.dirname(path) for path in controllers.values()}
    where = min(places, key=len)
    rest = f"[{where}]"
    if layout.unified is not None:
        rest += f", v1 and v2 beside each other (hybrid) [{layout.unified}]"
    if len(controllers) > 4 and len(set(controllers.values())) == 1:
        note = "(all controllers share one mount; mount each on a directory of its own)"
        return [Line("cgroup hierarchy", "single mountpoint!", False, False, (note,), rest)]
    return [Line("cgroup hierarchy", "properly mounted", rest=rest)]


def _v2(layout: Layout) -> list[Line]:
    found = [Line("cgroup hierarchy", "cgroupv2", rest=f"[{layout.unified}]")]
    try:
        with open(f"{layout.unified}/cgroup.controllers", encoding="ascii") as file:
            available = file.read().split()
    except OSError as error:
        return [*found, Line(f"{layout.unified}/cgroup.controllers", error.strerror or "missing", False)]
    for name in _V2_CONTROLLERS:
        good = name in available
        found.append(Line(f"controller {name}", "available" if good else "missing", good))
    return found


def _apparmor() -> list[Line]:
    if not apparmor.enabled():
        return []
    why = profiles.lacking()
    if not why:
        return [Line("apparmor", "enabled and tools installed")]
    return [Line("apparmor", f"enabled, but containers run without a profile: {why}", False)]
