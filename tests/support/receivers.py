"""Receivers of log lines: sockets that collect, and just enough msgpack to read Fluentd's protocol."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import Any


class Stream:
    """A TCP (or unix) server that keeps all bytes of all connections; `answer` may reply to each piece."""

    def __init__(
        self, port: int = 0, path: str = "", tls: ssl.SSLContext | None = None,
        answer: Callable[[bytes], bytes] | None = None,
    ) -> None:  # fmt: skip
        self.data = b""
        self._tls, self._answer = tls, answer
        self._open: list[socket.socket] = []
        if path:
            self._server = socket.socket(socket.AF_UNIX)
            self._server.bind(path)
            self._server.listen()
        else:
            self._server = socket.create_server(("127.0.0.1", port), reuse_port=False)
            self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = self._server.accept()
                threading.Thread(target=self._take, args=(end,), daemon=True).start()

    def _take(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self._tls is not None:
                end = self._tls.wrap_socket(end, server_side=True)
            self._open.append(end)
            while piece := end.recv(65536):
                self.data += piece
                if self._answer is not None and (reply := self._answer(piece)):
                    end.sendall(reply)

    def close(self) -> None:
        """Stop listening and break all connections."""
        for end in (self._server, *self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Datagrams:
    """A UDP or unix datagram socket that keeps all it gets, with the descriptors that came along."""

    def __init__(self, path: str = "") -> None:
        self.packets: list[bytes] = []
        self.passed: list[bytes] = []
        if path:
            self._end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._end.bind(path)
        else:
            self._end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._end.bind(("127.0.0.1", 0))
            self.port = self._end.getsockname()[1]
        threading.Thread(target=self._take, daemon=True).start()

    def _take(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, fds, _, _ = socket.recv_fds(self._end, 1 << 20, 4)
                for fd in fds:
                    with open(fd, "rb") as file:
                        file.seek(0)
                        self.passed.append(file.read())
                self.packets.append(data)

    def close(self) -> None:
        """Stop."""
        self._end.close()


def unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """One msgpack value, and where the next begins."""
    tag = data[at]
    at += 1
    if tag < 0x80:
        return tag, at
    if tag < 0x90:
        return _map(data, at, tag & 15)
    if tag < 0xA0:
        return _array(data, at, tag & 15)
    if tag < 0xC0:
        return data[at : at + (tag & 31)].decode(), at + (tag & 31)
    if tag in (0xD9, 0xDA, 0xDB):
        width = {0xD9: 1, 0xDA: 2, 0xDB: 4}[tag]
        size = int.from_bytes(data[at : at + width], "big")
        return data[at + width : at + width + size].decode(), at + width + size
    if tag == 0xCE:
        return int.from_bytes(data[at : at + 4], "big"), at + 4
    if tag == 0xD7:
        return struct.unpack(">II", data[at + 1 : at + 9]), at + 9
    if tag == 0xDD:
        return _array(data, at + 4, int.from_bytes(data[at : at + 4], "big"))
    if tag == 0xDE:
        return _map(data, at + 2, int.from_bytes(data[at : at + 2], "big"))
    raise ValueError(f"msgpack: {tag:#x}")


def _array(data: bytes, at: int, count: int) -> tuple[list[Any], int]:
    found = []
    for _ in range(count):
        value, at = unpack(data, at)
        found.append(value)
    return found, at


def _map(data: bytes, at: int, count: int) -> tuple[dict[str, Any], int]:
    found = {}
    for _ in range(count):
        key, at = unpack(data, at)
        found[key], at = unpack(data, at)
    return found, at
