"""`connect`: where the daemon is, and one object from which everything else is reached."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from sampan.cli.failures import CommandError
from sampan.cli.hosts import Host
from sampan.client.containers import Containers
from sampan.client.images import Images
from sampan.client.objects import Networks, Volumes
from sampan.client.process import Completed, Input
from sampan.client.streams import Stream, json_values
from sampan.client.transport import Transport
from sampan.errors import InvalidParameter, Unsupported
from sampan.places import default_socket

Json = dict[str, Any]


class Session:
    """The daemon. Leaving it closes every stream that is still open."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.containers = Containers(transport)
        self.images = Images(transport)
        self.networks = Networks(transport)
        self.volumes = Volumes(transport)

    async def __aenter__(self) -> Self:
        await self.ping()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._transport.close()

    async def run(
        self,
        image: str,
        command: str | Iterable[str] | None = None,
        *,
        input: Input | None = None,
        timeout: float | None = None,
        check: bool = True,
        **options: Any,
    ) -> Completed:
        """Run a command in a new container to its end: see `Containers.run`."""
        return await self.containers.run(image, command, input=input, timeout=timeout, check=check, **options)

    async def ping(self) -> None:
        """Reach the daemon.

        Raises:
            ConnectionFailed: nobody answers.
        """
        reply = await self._transport.request("GET", "/_ping")
        await reply.read()

    async def version(self) -> Json:
        """The daemon's versions."""
        answer: Json = await self._transport.call("GET", "/version")
        return answer

    async def info(self) -> Json:
        """The daemon and its machine."""
        answer: Json = await self._transport.call("GET", "/info")
        return answer

    def events(
        self,
        *,
        filters: Mapping[str, Sequence[str]] | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> Stream[Json]:
        """What happens, as it happens.

        Args:
            filters: such as `{"type": ["container"], "event": ["die"]}`.
            since, until: seconds since 1970.
        """
        query = {"filters": dict(filters or {}), "since": since, "until": until}
        return Stream(lambda: self._transport.request("GET", "/events", query), json_values)


def connect(host: str | None = None, *, start: bool | None = None) -> Session:
    """The daemon at `host`, else at SAMPAN_HOST or DOCKER_HOST, else the machine's own, or the user's.

    Args:
        host: `unix:///path/of/socket`.
        start: start that daemon when nobody answers; None to do so where no host is named anywhere.
            It ends by itself when it has had nothing to do for ten minutes.

    Raises:
        InvalidParameter: the host cannot be understood.
        Unsupported: it is none that this client can reach, or a daemon cannot be started there.
    """
    named = host or os.environ.get("SAMPAN_HOST") or os.environ.get("DOCKER_HOST")
    try:
        found = Host(named or f"unix://{default_socket()}", automatic=not named)
    except CommandError as error:
        raise InvalidParameter(error.message) from error
    if not found.path:
        raise Unsupported(f"the Python client speaks over a unix socket, not to {found.url}")
    if start and found.path != default_socket():
        raise Unsupported(f"only the daemon at {default_socket()} is started by need, not {found.url}")
    return Session(Transport(found.path, found.automatic if start is None else start))
