"""What the kernel tells of a socket: unix(7), tcp(7)."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios


def unread_bytes(sock: socket.socket) -> int:
    """How much of what was sent on a unix socket its other side has not read yet; 0 for other sockets.

    In units of the kernel's buffers, so more than the bytes themselves (SIOCOUTQ, which is TIOCOUTQ).
    """
    if sock.family != socket.AF_UNIX:
        return 0
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"))[0])
