"""The fuse-overlayfs driver: overlay2's directories, stacked by a program, fuse-overlayfs(1).

For kernels whose overlay file system is missing or cannot stand on what the data root lies on. The program
puts itself into the background once it has mounted, belongs to no session, and ends with its mount: neither
the daemon's end nor its start means anything to it. One that died leaves a mount on which every call fails
(ENOTCONN). A container that was running on it has lost its files' server and must be started again, for which
a new one is mounted.

Beside overlay's own marks, whiteouts as devices and opaque directories by attribute, the program leaves files
called `.wh.…`; a container cannot make any itself.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
from pathlib import Path

from sampan.errors import InvalidParameter
from sampan.linux import features
from sampan.storage import overlay2
from sampan.storage.errors import DriverError
from sampan.storage.unpack import WHITEOUT

PROGRAM = "fuse-overlayfs"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MOUNT_TIMEOUT_S = 60
# Written through, so that the container's directory always holds what it wrote; devices as overlay has them.
_OPTIONS = ("writeback=0", "dev")
_log = logging.getLogger(__name__)


class FuseOverlayfs(overlay2.Overlay2):
    """See `sampan.storage.driver.Driver` for the calls."""

    name = "fuse-overlayfs"
    size_option = ""
    marks = WHITEOUT

    def _fill_container(self, path: Path, parent_layer: str | None, size_bytes: int) -> None:
        if size_bytes:  # the program writes as root, whom not every quota binds
            raise InvalidParameter("--storage-opt size: fuse-overlayfs cannot limit a container's size")
        super()._fill_container(path, parent_layer, size_bytes)

    def _mount(self, lowers: list[str], links: list[str], target: Path, upper: Path | None) -> None:
        mount(self.home, links, target, upper)

    def _alive(self, point: Path) -> bool:
        try:
            os.statvfs(point)  # unlike a stat(2), never answered from a cache
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
            _log.warning("the program fuse-overlayfs of %s has died", point)
            overlay2.detach(point)
            return False
        return True

    def status(self) -> list[tuple[str, str]]:
        return []


def mount(home: Path, lowers: list[str], target: Path, upper: Path | None) -> None:
    """Mount layers, and a writable directory on top of them.

    Args:
        home: the directory that `lowers` are relative to.
        lowers: the layers, topmost first, by names without a colon or a comma.
        target: an existing directory.
        upper: the writable directory in `home`, with `work` beside it; None for a read-only view.

    Raises:
        DriverError: the program is not there or has failed.
    """
    words = ["lowerdir=" + ":".join(lowers), *_OPTIONS]
    if upper is not None:
        words += [f"upperdir={upper.relative_to(home)}", f"workdir={upper.parent.relative_to(home)}/work"]
    try:
        done = subprocess.run(
            [_program(), "-o", ",".join(words), str(target)],
            cwd=home,
            env={"PATH": _PATH},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            timeout=_MOUNT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DriverError(f"fuse-overlayfs did not mount {target} in {_MOUNT_TIMEOUT_S} s") from None
    except OSError as error:
        raise DriverError(f"fuse-overlayfs cannot be run: {error.strerror}") from error
    if done.returncode != 0 or not os.path.ismount(target):
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise DriverError(f"fuse-overlayfs cannot mount {target}: {said[-1] if said else done.returncode}")


def _program() -> str:
    found = shutil.which(PROGRAM, path=_PATH)
    if found is None:
        raise DriverError(
            "the program fuse-overlayfs is not installed (Debian: apt-get install fuse-overlayfs)"
        )
    return found


def probe(home: Path) -> None:
    """Find out by doing whether the program can work in `home`, which must exist.

    Raises:
        DriverError: it cannot, and why.
    """
    try:
        _program()
        if not os.path.exists("/dev/fuse"):
            raise DriverError(f"there is no /dev/fuse: {features.lacking('fuse')}")
    except DriverError as error:
        raise DriverError(f"fuse-overlayfs cannot be used in {home}: {error.message}") from None
    overlay2.probe(home, "fuse-overlayfs", mount)
