"""A TCP proxy in front of a registry on loopback that counts, slows down and cuts what comes back."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Proxy:
    """Listens at `host` while it is open as a context.

    Args:
        port: the registry's, on 127.0.0.1.

    Attributes:
        cuts: after how many bytes of answers each connection is cut, used up one connection at a time; short
            answers do not use one up.
        rate: bytes a second; 0 for as fast as it goes.
        hold: while cleared, answers stand still after `hold_after` bytes.
        passed: bytes of answers that went through, heads included.
        cut: how many connections were cut.
    """

    def __init__(self, port: int) -> None:
        self.cuts: list[int] = []
        self.rate = 0
        self.hold = threading.Event()
        self.hold.set()
        self.hold_after = 0
        self.passed = 0
        self.cut = 0
        self._port = port
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._closed = False

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self.hold.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._open):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
            except OSError:
                return
            self._open |= {client, server}
            threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answers, args=(server, client), daemon=True).start()

    def _requests(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _answers(self, source: socket.socket, target: socket.socket) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                if sent >= self.hold_after:
                    self.hold.wait()
                with self._lock:
                    limit = self.cuts[0] if self.cuts else None
                    if limit is not None and sent + len(data) > limit:
                        self.cuts.pop(0)
                        self.cut += 1
                        data = data[: max(0, limit - sent)]
                    else:
                        limit = None
                target.sendall(data)
                sent += len(data)
                self.passed += len(data)
                if self.rate:
                    time.sleep(len(data) / self.rate)
                if limit is not None:
                    break
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
            self._open.discard(one)
