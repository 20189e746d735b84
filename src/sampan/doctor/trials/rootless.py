"""What a daemon without root finds here, for the user who asks or who called sudo; none of it is needed."""

from __future__ import annotations

import os
import pwd

from sampan.doctor.trials.place import Place
from sampan.doctor.trials.running import Fails, NotTried, Trial
from sampan.linux import cgroups, kernel
from sampan.rootless import delegation, subids, uplink

_OVERLAY_SINCE = (5, 11)


def _user() -> tuple[int, str]:
    """Who would have such a daemon: the uid and its name, or the number where no file names it.

    Raises:
        NotTried: root, who needs none.
    """
    uid = os.getuid()
    try:
        sudo = os.environ.get("SUDO_USER", "")
        found = pwd.getpwnam(sudo) if sudo else pwd.getpwuid(uid)
        uid, name = found.pw_uid, found.pw_name
    except KeyError:
        name = str(uid)
    if uid == 0:
        raise NotTried("root needs none; run it as the user who would")
    return uid, name


def _subordinate(_: Place) -> str:
    """subuid(5), subgid(5), newuidmap(1): ids that a user may give to a user namespace."""
    uid, name = _user()
    ids = subids.find(uid)
    if ids.lacking:
        what, remedy = ids.lacking.split(": ", 1)
        command, comma, rest = remedy.partition(", ")
        raise Fails(what, f"`{command}`{comma}{rest}")
    return f"for {name}: {sum(count for _, count in ids.uids)}"


def _way_out(_: Place) -> str:
    _user()
    found = uplink.program()
    if not found:
        raise Fails("slirp4netns is not installed", "`sudo apt-get install slirp4netns`")
    if not os.path.exists("/dev/net/tun"):
        raise Fails("there is no /dev/net/tun", "`sudo modprobe tun`")
    return found


def _cgroups(_: Place) -> str:
    """What systemd hands down to the user (user@.service)."""
    uid, name = _user()
    layout = cgroups.detect()
    if layout.version != 2:
        raise Fails(delegation.VERSION_1, f"the boot option {delegation.UNIFIED}")
    place = f"{layout.unified}/user.slice/user-{uid}.slice/user@{uid}.service"
    if not os.path.exists(place):
        raise Fails(f"no systemd of {name}'s runs", f"`sudo loginctl enable-linger {name}`")
    if not os.path.exists(f"/run/user/{uid}/bus"):
        raise Fails(f"the systemd of {name} has no bus", "`sudo apt-get install dbus-user-session`")
    with open(f"{place}/cgroup.controllers", encoding="ascii") as file:
        return f"for {name}: {file.read().strip()}"


def _overlay(_: Place) -> str:
    _user()
    if kernel.release() < _OVERLAY_SINCE:
        raise Fails(
            "this kernel has overlays for root alone", "Linux 5.11 or newer, or the program fuse-overlayfs"
        )
    return ""


TRIALS = tuple(
    Trial(f"without root: {name}", work, without, rootless=True, here=True)
    for name, work, without in (
        ("subordinate ids (subuid, subgid)", _subordinate, "users of images other than root"),
        ("way out (slirp4netns)", _way_out, "a way out of containers' networks"),
        ("cgroups", _cgroups, "limits, pause, and what containers use"),
        ("overlay", _overlay, "the driver overlay2"),
    )
)
