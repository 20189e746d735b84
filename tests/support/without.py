"""Runs a command as on an older kernel: python without.py CALL,CALL… COMMAND …

The named system calls answer ENOSYS, by a seccomp filter that everything started from it inherits. A filter
cannot see clone3's flags, which lie in memory: CLONE_INTO_CGROUP is gone when clone3 is.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "src"))

from sampan.linux import seccomp

SCRIPT = str(Path(__file__).resolve())


def main() -> None:
    names, command = sys.argv[1].split(","), sys.argv[2:]
    rule = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}
    seccomp.load(seccomp.compile_filter({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
