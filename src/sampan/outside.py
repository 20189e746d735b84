"""The machine's own network, for a daemon that lives in another network namespace.

A socket belongs to the namespace that it was made in, whoever binds or connects it afterwards: so all that is
asked of the keeper (`sampan.rootless.keeper`), which lives outside, is a fresh socket, and what a name's
addresses are. With root none of this is needed, and each call is the plain one.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

MESSAGE_BYTES = 1 << 16
_PATIENCE_S = 60.0
_ATTEMPTS = 3
_keeper = ""


def use(path: str) -> None:
    """Ask the keeper at this unix socket from now on; "" for nobody."""
    global _keeper
    _keeper = path


def elsewhere() -> bool:
    """Whether the machine's network is not ours."""
    return bool(_keeper)


def open_socket(family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket in the machine's network.

    Raises:
        OSError: as socket(2), or the keeper is gone.
    """
    if not _keeper:
        return socket.socket(family, kind, protocol)
    _, fds = _ask({"op": "socket", "family": int(family), "kind": int(kind), "protocol": protocol})
    os.set_inheritable(fds[0], False)
    return socket.socket(fileno=fds[0])


def addresses(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    """Family and address of each place where a name is to be found by TCP, best first.

    Raises:
        OSError: as getaddrinfo(3).
    """
    if not _keeper:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [(family, address) for family, _, _, _, address in found]
    answer, _ = _ask({"op": "resolve", "host": host, "port": port})
    return [(family, tuple(address)) for family, address in answer["addresses"]]


def create_connection(
    address: tuple[str, int],
    timeout: Any = None,
    source_address: tuple[str, int] | None = None,
    socket_options: Sequence[tuple[int, int, int | bytes]] | None = None,
) -> socket.socket:
    """Connect by TCP, as urllib3's function of this name; the first of a name's addresses that answers.

    Raises:
        OSError: none does, and why the last does not.
    """
    host, port = address
    failure: OSError | None = None
    for family, place in addresses(host.strip("[]"), port):
        end = open_socket(family, socket.SOCK_STREAM)
        try:
            for option in socket_options or ():
                end.setsockopt(*option)
            if timeout is None or isinstance(timeout, int | float):  # urllib3 has a mark for "the default"
                end.settimeout(timeout)
            if source_address:
                end.bind(source_address)
            end.connect(place)
        except OSError as error:
            end.close()
            failure = error
        else:
            return end
    raise failure or OSError(f"{host} has no address")


def _ask(question: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    for _ in range(_ATTEMPTS):  # a keeper that is killed is begun anew, behind the same socket
        data, fds = _asked(question)
        if data:
            break
    else:
        raise ConnectionResetError("the keeper of the daemon's namespaces has gone")
    answer: dict[str, Any] = json.loads(data)
    if "error" in answer:
        number, text = answer["error"]
        if answer.get("name"):
            raise socket.gaierror(number, text)
        raise OSError(number, text)
    return answer, fds


def _asked(question: dict[str, Any]) -> tuple[bytes, list[int]]:
    """What the keeper says; nothing when it has ended meanwhile."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as end:
        end.settimeout(_PATIENCE_S)
        end.connect(_keeper)
        try:
            end.send(json.dumps(question).encode())
            data, fds, _, _ = socket.recv_fds(end, MESSAGE_BYTES, 1)
        except ConnectionError:
            return b"", []
    return data, fds
