"""Which kernel this is, and the one system call that nothing here can do without.

What other calls are missing is noticed where they are used, and done the older way: mounts by descriptor
(5.2), clone3 (5.3), CLONE_INTO_CGROUP (5.7), close_range (5.9), mount_setattr (5.12), cgroup.kill (5.14),
layers of an overlay one by one (6.7).
"""

from __future__ import annotations

import errno
import os
import re

from sampan.errors import Unsupported
from sampan.linux import syscalls

OLDEST = (5, 6)


def release() -> tuple[int, int]:
    """The two numbers that `uname -r` begins with."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def check() -> None:
    """See that paths of a container can be resolved safely: openat2(2), kernel 5.6.

    Raises:
        Unsupported: they cannot; nothing of a container's could be touched without risk.
    """
    try:
        os.close(syscalls.openat2(syscalls.AT_FDCWD, "/", os.O_PATH, resolve=syscalls.RESOLVE_IN_ROOT))
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        raise Unsupported(
            f"Linux {os.uname().release} does not offer openat2 here, without which the paths of a container "
            f"cannot be resolved safely: use Linux {OLDEST[0]}.{OLDEST[1]} or newer, and if this is a "
            "container itself, let its seccomp profile allow openat2"
        ) from None
