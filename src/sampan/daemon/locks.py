"""One daemon for each root: file locks that name their holder, and the pid file."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from sampan.errors import Conflict


class RootLock:
    """An exclusive lock on a file, which also holds our process id; the kernel drops it when we die.

    Args:
        path: the lock file; its directory exists. The file stays behind, as removing it would race.
        purpose: what it guards, for the message.

    Raises:
        Conflict: another daemon has it; the message says which.
    """

    def __init__(self, path: Path, purpose: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise Conflict(
                f"{purpose} is in use by another sampand (pid {holder}): stop it, or give this one its own "
                "--data-root, --exec-root, --bridge and --host"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


def write_pidfile(path: Path) -> None:
    """Write our process id, whole or not at all.

    Raises:
        Conflict: the file names another process that lives and is a sampand.
    """
    try:
        pid = int(path.read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        alive = b"sampan.daemon" in words or any(word.endswith(b"/sampand") for word in words[:2])
    except (OSError, ValueError):
        alive, pid = False, 0
    if alive and pid != os.getpid():
        raise Conflict(
            f"process with PID {pid} is still running: stop it, or give another --pidfile than {path}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(str(os.getpid()))
    temporary.rename(path)


def remove_pidfile(path: Path) -> None:
    """Remove the file if it is still ours."""
    try:
        if path.read_text() == str(os.getpid()):
            path.unlink()
    except OSError:
        pass  # somebody else has removed it
