"""Pseudo-terminals made inside a given devpts instance (pty(7), ioctl_tty(2))."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431
_TIOCGPTN = 0x80045430


def open_pair(ptmx: int) -> tuple[int, int, str]:
    """A new terminal of the devpts instance whose `ptmx` node was opened.

    The slave end is taken through the master (TIOCGPTPEER), not by a path that somebody may have replaced.

    Args:
        ptmx: descriptor of a freshly opened `ptmx`; it becomes the master.

    Returns:
        Master, slave and the slave's name in its devpts, a decimal number.
    """
    fcntl.ioctl(ptmx, _TIOCSPTLCK, struct.pack("i", 0))
    (number,) = struct.unpack("I", fcntl.ioctl(ptmx, _TIOCGPTN, b"\0" * 4))
    slave = fcntl.ioctl(ptmx, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    return ptmx, slave, str(number)


def set_size(fd: int, rows: int, columns: int) -> None:
    """Give a terminal its size in characters; its foreground processes get SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


def make_controlling(fd: int) -> None:
    """Make the terminal the controlling one of this session, whose leader the caller must be."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
