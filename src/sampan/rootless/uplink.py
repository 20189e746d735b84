"""The way out of a daemon's network namespace: slirp4netns(1), beside the keeper.

pasta(1) is not offered: it ends where the machine has no default route, and does not say when it is ready.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

log = logging.getLogger("sampan.rootless")

DNS = "10.0.2.3"
DEVICE = "tap0"
LACKING = (
    "networks lead nowhere: slirp4netns is not installed (sudo apt-get install slirp4netns), "
    "then start the daemon again"
)
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/bin:/usr/local/bin"
_PAUSE_S = 2.0
_READY_S = 10.0
# The program ends with us (PR_SET_PDEATHSIG); code of ours between fork and execve is unsafe with threads.
_BORN = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def program() -> str:
    """The path of the program that is to be used; "" when there is none."""
    return shutil.which("slirp4netns", path=_PATH) or ""


class Uplink:
    """The running program; it is begun again when it ends, and ends with this process.

    Args:
        path: what to run.
        user, network: descriptors of the namespaces.
    """

    def __init__(self, path: str, user: int, network: int) -> None:
        self._path = path
        self._spaces = (user, network)
        self._child: subprocess.Popen[bytes] | None = None
        self.name = os.path.basename(path)
        self.pid = 0

    def start(self) -> None:
        """Begin it, wait until it is ready, and see to it from now on.

        Raises:
            OSError: it cannot be run, or ends at once.
        """
        if not self._begin():
            raise OSError(errno.EIO, "it ends at once; its reason is in the daemon's log")
        threading.Thread(target=self._tend, name="uplink", daemon=True).start()

    def _begin(self) -> bool:
        """Run it; whether it has become ready."""
        ready, told = os.pipe()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BORN, str(os.getpid()), *self._words(told)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(*self._spaces, told),
            )
        finally:
            os.close(told)
        self.pid = self._child.pid
        try:
            poll = select.poll()
            poll.register(ready, select.POLLIN)
            return bool(poll.poll(_READY_S * 1000) and os.read(ready, 1))
        finally:
            os.close(ready)

    def _words(self, told: int) -> Sequence[str]:
        user, network = self._spaces
        return (
            *(self._path, "--configure", "--mtu=65520", "--disable-host-loopback", f"--ready-fd={told}"),
            *("--netns-type=path", f"--userns-path=/proc/self/fd/{user}", f"/proc/self/fd/{network}", DEVICE),
        )

    def _tend(self) -> None:
        while True:
            assert self._child is not None
            code = self._child.wait()
            log.error("%s has ended with %d; it is begun again", self.name, code)
            time.sleep(_PAUSE_S)
            try:
                self._begin()
            except OSError as error:
                log.error("%s cannot be begun: %s", self.name, error)
