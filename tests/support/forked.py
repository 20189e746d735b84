"""Our programs in forks of this process: on an emulated machine the start of any other takes a second.

Python and its imports are what takes long, some fifteen seconds for the daemon; a fork has them already.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn


class Child:
    """A fork of this process; what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        main: Callable[[], int | None],
        arguments: list[str],
        environment: Mapping[str, str],
        fds: tuple[int, int, int],
    ) -> None:
        """Fork.

        Args:
            main: what the child does; it returns the exit status, or raises SystemExit.
            arguments: its command line, without the program.
            environment: all of its variables.
            fds: its standard input, output and error. All others stay as they are: modules that we have in
                common may hold some.
        """
        self.arguments = arguments
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _be(main, arguments, environment, fds)
        self._pidfd = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        """The exit status, as subprocess gives it; None while it runs."""
        if self.returncode is None and select.select([self._pidfd], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; the exit status.

        Raises:
            subprocess.TimeoutExpired: it runs on after so many seconds.
        """
        if self.returncode is None:
            if not select.select([self._pidfd], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.arguments, timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self._pidfd)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """End it without a chance to do anything."""
        self.send_signal(signal.SIGKILL)


def _be(
    main: Callable[[], int | None],
    arguments: list[str],
    environment: Mapping[str, str],
    fds: tuple[int, int, int],
) -> NoReturn:
    status = 1
    try:
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
        sys.stdin, sys.stdout, sys.stderr = map(os.fdopen, range(3), "rww")
        logging.getLogger().handlers.clear()  # pytest's
        sys.argv[1:] = arguments
        os.environ.clear()
        os.environ.update(environment)
        status = main() or 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
