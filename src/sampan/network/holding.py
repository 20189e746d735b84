"""Taking a port of the host's by binding a socket to it, and holding it so that no program binds it later.

What goes to a published port never reaches a socket of the host's: a program that bound it later would listen
there and hear nothing. Docker holds ports for the same reason, by a process or a socket each. Here the socket
that a port is tried with stays open, in the daemon, for as many of a container's ports as `MOST`: a range of
ten thousand is to cost no ten thousand descriptors. While no daemon runs nothing is held.
"""

from __future__ import annotations

import contextlib
import errno
import socket

from sampan import outside

MOST = 256  # of one container's
_BACKLOG = 4096
_KINDS = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}


def take(protocol: str, address: str, port: int) -> socket.socket | None:
    """Bind a socket that does not listen; None where nobody on the host can speak the protocol.

    Raises:
        OSError: EADDRINUSE when a program has the port, EADDRNOTAVAIL when the host has not the address.
    """
    kind, number = _KINDS[protocol]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        held = socket.socket(family, kind, number)
    except OSError as error:
        if protocol == "sctp" and error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            return None  # containers need no support of the kernel's either: they may bring their own
        raise
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "udp":
            held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # nobody reads it
        try:
            held.bind((address, port))
        except OSError as error:
            # What has only just been closed is no obstacle, what listens is. But this way others could bind
            # it too, so it comes second.
            if error.errno != errno.EADDRINUSE or protocol == "udp":
                raise
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((address, port))
    except BaseException:
        held.close()
        raise
    return held


def listen(protocol: str, address: str, port: int) -> socket.socket:
    """Bind a socket that is to be heard; TCP's listens.

    Raises:
        OSError: as `take`.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    heard = outside.open_socket(family, *_KINDS[protocol])
    try:
        if family == socket.AF_INET6:
            heard.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if protocol == "tcp":
            heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        heard.bind((address, port))
        if protocol == "tcp":
            heard.listen(_BACKLOG)
    except BaseException:
        heard.close()
        raise
    return heard


def problem(error: OSError, port: int = 0) -> str:
    """Why a port could not be taken, in Docker's words."""
    if error.errno == errno.EACCES:
        return (
            f"without root this user may not have ports that low: sudo sysctl -w "
            f"net.ipv4.ip_unprivileged_port_start={port}, or take one from 1024 on"
        )
    if error.errno == errno.EADDRINUSE:
        return "address already in use"
    if error.errno == errno.EADDRNOTAVAIL:
        return "cannot assign requested address"
    return error.strerror or str(error)


class Holding:
    """The sockets that hold ports. For one thread at a time."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str, int], socket.socket] = {}
        self._counts: dict[str, int] = {}
        self._owners: dict[tuple[str, str, int], str] = {}

    def take(self, owner: str, protocol: str, address: str, port: int) -> None:
        """Make sure that no program of the host's has a port, and hold it if the owner holds few.

        Raises:
            OSError: as `take`.
        """
        taken = take(protocol, address, port)
        if taken is None:
            return
        if self._counts.get(owner, 0) >= MOST:
            taken.close()
            return
        self._keep(owner, (protocol, address, port), taken)

    def listen(self, owner: str, protocol: str, address: str, port: int) -> None:
        """Take a port to be heard, however many the owner has.

        Raises:
            OSError: as `listen`.
        """
        self._keep(owner, (protocol, address, port), listen(protocol, address, port))

    def get(self, protocol: str, address: str, port: int) -> socket.socket | None:
        """The socket that holds a port."""
        return self._held.get((protocol, address, port))

    def _keep(self, owner: str, key: tuple[str, str, int], taken: socket.socket) -> None:
        self._held[key] = taken
        self._owners[key] = owner
        self._counts[owner] = self._counts.get(owner, 0) + 1

    def take_again(self, owner: str, protocol: str, address: str, port: int) -> None:
        """Hold a port that is published already; whoever has it by now keeps it."""
        with contextlib.suppress(OSError):
            self.take(owner, protocol, address, port)

    def close(self) -> None:
        """Let go of all."""
        for protocol, address, port in list(self._held):
            self.let_go(protocol, address, port)

    def let_go(self, protocol: str, address: str, port: int) -> None:
        """Let others have a port; one that is not held is fine."""
        held = self._held.pop((protocol, address, port), None)
        if held is None:
            return
        held.close()
        owner = self._owners.pop((protocol, address, port))
        self._counts[owner] -= 1
        if not self._counts[owner]:
            del self._counts[owner]
