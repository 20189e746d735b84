"""What the screens ask the daemon: one request after the other on a connection, streams on one of their own.

Everything here blocks, and is called in threads.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sampan.cli.client import Client, Response, escape
from sampan.cli.failures import ApiError, CommandError
from sampan.cli.hosts import Host

KINDS = ("containers", "images", "volumes", "networks")
_ONE = {"containers": "container", "images": "image", "volumes": "volume", "networks": "network"}


class Source:
    """The daemon.

    Args:
        host: where it is.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self._client = Client(host)
        self._lock = threading.Lock()

    def _call(self, method: str, path: str, query: dict[str, Any] | None = None) -> Any:
        with self._lock:
            try:
                return self._client.call(method, path, query)
            except ApiError:
                raise
            except (CommandError, OSError, EOFError):
                self._client.close()  # it may be in the middle of something
                raise

    def close(self) -> None:
        """Give up the connection; the next request makes another. One that is under way is not waited for."""
        if self._lock.acquire(blocking=False):
            try:
                self._client.close()
            finally:
                self._lock.release()

    def rows(self, kind: str, everything: bool) -> list[dict[str, Any]]:
        """The objects of a kind as the API lists them.

        Args:
            everything: stopped containers too.
        """
        if kind == "containers":
            return list(self._call("GET", "/containers/json", {"all": everything}) or ())
        if kind == "images":
            return list(self._call("GET", "/images/json") or ())
        if kind == "volumes":
            return list((self._call("GET", "/volumes") or {}).get("Volumes") or ())
        return list(self._call("GET", "/networks") or ())

    def inspect(self, kind: str, key: str) -> Any:
        """All that the daemon says of one object."""
        if kind in ("containers", "images"):
            return self._call("GET", f"/{kind}/{escape(key)}/json")
        return self._call("GET", f"/{kind}/{escape(key)}")

    def act(self, verb: str, container: str) -> None:
        """start, stop, restart, kill, pause or unpause a container."""
        self._call("POST", f"/containers/{escape(container)}/{verb}")

    def remove(self, kind: str, key: str) -> None:
        """Remove an object; a container also while it runs."""
        force = {"force": True} if kind == "containers" else None
        self._call("DELETE", f"/{kind}/{escape(key)}", force)

    def has_terminal(self, container: str) -> bool:
        """Whether the container's output is that of a terminal, and so not in frames."""
        return bool(self.inspect("containers", container)["Config"].get("Tty"))

    def logs(self, container: str, lines: int) -> Stream:
        """What a container prints, from so many lines back, and on as it comes."""
        framed = not self.has_terminal(container)
        query = {"stdout": True, "stderr": True, "follow": True, "tail": str(lines)}

        def parts(answer: Response) -> Iterator[bytes]:
            return unframed(answer.pieces()) if framed else answer.pieces()

        return Stream(self.host, f"/containers/{escape(container)}/logs", query, parts)

    def figures(self, container: str) -> Stream:
        """What a container uses, once a second."""
        return Stream(self.host, f"/containers/{escape(container)}/stats", {"stream": "1"}, Response.values)

    def events(self) -> Stream:
        """What happens to objects."""
        query = {"filters": {"type": dict.fromkeys(_ONE.values(), True)}}
        return Stream(self.host, "/events", query, Response.values)


class Stream:
    """One answer that does not end by itself.

    Args:
        reading: makes items of the answer.
    """

    def __init__(
        self, host: Host, path: str, query: dict[str, Any], reading: Callable[[Response], Iterator[Any]]
    ) -> None:
        self._host = host
        self._path = path
        self._query = query
        self._reading = reading
        self._answer: Response | None = None
        self._stopped = False

    def follow(self, take: Callable[[Any], object], ended: Callable[[str], object]) -> None:
        """In a thread of its own: `take` each item, then `ended` with the reason, "" for a plain end."""
        threading.Thread(target=self._follow, args=(take, ended), daemon=True).start()

    def _follow(self, take: Callable[[Any], object], ended: Callable[[str], object]) -> None:
        reason = ""
        try:
            self._answer = Client(self._host).request("GET", self._path, self._query)
            if self._stopped:
                return
            for item in self._reading(self._answer):
                if self._stopped:
                    return
                take(item)
        except (CommandError, OSError, EOFError) as error:
            reason = (
                error.message if isinstance(error, CommandError) else str(error) or "the connection ended"
            )
        finally:
            if self._answer is not None:
                self._answer.close()
        if not self._stopped:
            ended(reason)

    def stop(self) -> None:
        """Let go: the thread that reads wakes up and ends."""
        self._stopped = True
        if self._answer is not None:
            try:
                self._answer.channel.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself


def unframed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The output in a stream of frames (Engine API, "Attach to a container")."""
    rest = b""
    for piece in pieces:
        rest += piece
        found = []
        while len(rest) >= 8:
            end = 8 + int.from_bytes(rest[4:8], "big")
            if len(rest) < end:
                break
            found.append(rest[8:end])
            rest = rest[end:]
        if found:
            yield b"".join(found)
