"""Listening sockets: unix ones with the right owner from the first moment, TCP, sd_listen_fds(3)."""

from __future__ import annotations

import grp
import logging
import os
import socket
import ssl
import stat

from sampan import outside
from sampan.daemon.settings import Settings
from sampan.dataclasses import dataclass
from sampan.errors import Conflict, InvalidParameter, SampanError
from sampan.http import server_context

log = logging.getLogger("sampan.daemon")


@dataclass(slots=True)
class Listener:
    """One listening socket; `path` is set for a unix socket that is ours to remove."""

    url: str
    socket: socket.socket
    tls: ssl.SSLContext | None = None
    path: str = ""
    inode: int = 0

    def withdraw(self) -> None:
        """Take the socket's name away, so that who comes now finds nobody; who has come is still accepted."""
        if self._is_ours(self.path):
            os.rename(self.path, _aside(self.path))

    def restore(self) -> None:
        """Give the socket its name back."""
        if self._is_ours(_aside(self.path)):
            os.rename(_aside(self.path), self.path)

    def close(self) -> None:
        """Stop listening; the socket file goes if nobody has replaced it."""
        for path in (self.path, _aside(self.path)):
            if self._is_ours(path):
                os.unlink(path)
        self.socket.close()

    def _is_ours(self, path: str) -> bool:
        try:
            return bool(self.path) and os.stat(path).st_ino == self.inode
        except OSError:
            return False  # gone already


def _aside(path: str) -> str:
    """Where a socket is bound before it gets its name, and after it has lost it."""
    return os.path.join(os.path.dirname(path), f".s{os.getpid()}")


def open_listeners(settings: Settings) -> list[Listener]:
    """Bind everything that the settings name, or nothing.

    Raises:
        SampanError: with the address and what is wrong with it.
    """
    group = socket_group(settings.group, settings.group_named)
    tls = settings.tls
    context = server_context(tls.certificate, tls.key, tls.ca if tls.verify else "") if tls else None
    if tls and not any(host.startswith(("tcp://", "fd://")) for host in settings.hosts):
        log.warning(
            "--%s: no host is tcp://, and a unix socket is never encrypted: the certificates serve nobody",
            "tlsverify" if tls.verify else "tls",
        )
    opened: list[Listener] = []
    mode = 0o600 if settings.engine.rootless else 0o660
    try:
        for host in dict.fromkeys(settings.hosts):
            if host.startswith("unix://"):
                opened.append(open_unix(host.removeprefix("unix://"), group, mode))
            elif host.startswith("tcp://"):
                opened.extend(_open_tcp(host, context))
            else:
                opened.extend(_inherited(settings, context))
    except BaseException:
        for listener in opened:
            listener.close()
        raise
    return opened


def socket_group(name: str, named: bool) -> int:
    """The group id for the sockets; root's when the default group does not exist here.

    Raises:
        InvalidParameter: somebody asked for this group, and there is none.
    """
    if not name:
        return os.getegid()
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name.isdigit():
            return int(name)
        if named:
            raise InvalidParameter(f"group {name!r} does not exist: make it (groupadd {name})") from None
        return os.getegid()


def open_unix(path: str, group: int, mode: int = 0o660) -> Listener:
    """A unix socket; it appears under its name with owner and mode already right.

    Raises:
        Conflict: somebody answers there.
        InvalidParameter: there is something else of that name.
    """
    directory = os.path.dirname(path)
    os.makedirs(directory, mode=0o755, exist_ok=True)
    if os.path.lexists(path):
        _check_stale(path)
    temporary = _aside(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        old = os.umask(0o177)
        try:
            sock.bind(temporary if len(temporary.encode()) < 108 else path)
        finally:
            os.umask(old)
        bound = sock.getsockname()
        if group != os.getegid() or group != os.stat(bound).st_gid:
            os.chown(bound, -1, group)
        os.chmod(bound, mode)
        sock.listen(1024)
        if bound != path:
            os.rename(bound, path)
        return Listener(f"unix://{path}", sock, path=path, inode=os.stat(path).st_ino)
    except OSError as error:
        sock.close()
        raise SampanError(f"cannot listen on unix://{path}: {error.strerror}") from None


def _check_stale(path: str) -> None:
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise InvalidParameter(f"cannot listen on unix://{path}: there is a file of that name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return  # nobody is behind it: a leftover
        except FileNotFoundError:
            return
        except OSError:
            raise InvalidParameter(f"cannot listen on unix://{path}: there is something else") from None
    raise Conflict(f"cannot listen on unix://{path}: another daemon answers there")


def open_tcp(url: str, name: str, port: int, context: ssl.SSLContext | None = None) -> list[Listener]:
    """Listen on every address that a name has, "" for all of the machine's.

    Args:
        url: what to call it in errors.

    Raises:
        SampanError: one of them cannot be had; none is kept then.
    """
    try:
        found = socket.getaddrinfo(name or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SampanError(f"cannot listen on {url}: {error.strerror}") from None
    opened: list[Listener] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        sock = outside.open_socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(1024)
        except OSError as error:
            sock.close()
            for listener in opened:
                listener.close()
            raise SampanError(f"cannot listen on {url}: {error.strerror}") from None
        opened.append(Listener(url, sock, context))
    return opened


def _open_tcp(url: str, context: ssl.SSLContext | None) -> list[Listener]:
    name, _, port = url.removeprefix("tcp://").rpartition(":")
    opened = open_tcp(url, name.strip("[]"), int(port), context)
    if context is None:
        log.warning("%s is served without TLS: whoever can reach it is root on this machine", url)
    return opened


def _inherited(settings: Settings, context: ssl.SSLContext | None) -> list[Listener]:
    """Sockets from the service manager: LISTEN_FDS of them, from descriptor 3 on."""
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit() or not int(count):
        raise InvalidParameter(
            "fd://: no sockets were passed in (LISTEN_FDS): start sampand by socket activation"
        )
    opened: list[Listener] = []
    for fd in range(3, 3 + int(count)):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        if sock.family == socket.AF_UNIX:
            opened.append(Listener("fd://", sock))
        elif context is None and not settings.plaintext_tcp:
            raise InvalidParameter(
                "fd://: a TCP socket was passed in: use --tlsverify, or --allow-plaintext-tcp"
            )
        else:
            opened.append(Listener("fd://", sock, context))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return opened
