"""To use a socket anew: what Python's cannot do is take an association back (connect(2), AF_UNSPEC).

The kernel then gives it another port at its next use, unless it was bound to one. So a process without the
right to enter a network namespace can go on asking from there, each time from a port of the kernel's choice.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

from sampan.linux.syscalls import libc

IP_RECVERR = 11  # ip(7)
_UNSPECIFIED = struct.pack("=H14x", socket.AF_UNSPEC)


def dissolve(end: socket.socket) -> None:
    """Make a socket as if it had just been made: not connected and without a port.

    Raises:
        OSError: with the kernel's errno.
    """
    if libc.connect(end.fileno(), _UNSPECIFIED, len(_UNSPECIFIED)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"connect: {os.strerror(code)}")
    end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # the end of the association counts as an error
