"""Networks and volumes, as far as the daemon has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sampan.client.transport import Transport, part

Json = dict[str, Any]
Filters = Mapping[str, Sequence[str]]


class Networks:
    """All networks of the daemon."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, filters: Filters | None = None) -> list[Json]:
        """Every network, in the API's words."""
        found: list[Json] = await self._transport.call("GET", "/networks", {"filters": dict(filters or {})})
        return found

    async def inspect(self, name: str) -> Json:
        """One network, by name or id.

        Raises:
            NotFound: there is none.
        """
        found: Json = await self._transport.call("GET", f"/networks/{part(name)}")
        return found

    async def create(
        self,
        name: str,
        *,
        subnet: str = "",
        internal: bool = False,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> str:
        """Make a network of the bridge driver; its id.

        Args:
            subnet: in CIDR form; without one, a free one is chosen.
            internal: it has no way out.
            options: the driver's, as `com.docker.network.driver.mtu`.

        Raises:
            Conflict: there is one of this name.
        """
        body: Json = {
            "Name": name,
            "Internal": internal,
            "Options": dict(options or {}),
            "Labels": dict(labels or {}),
            "IPAM": {"Config": [{"Subnet": subnet}] if subnet else []},
        }
        made: Json = await self._transport.call("POST", "/networks/create", None, body)
        return str(made["Id"])

    async def remove(self, name: str) -> None:
        """Remove a network.

        Raises:
            Forbidden: containers are in it, or it is predefined.
        """
        await self._transport.call("DELETE", f"/networks/{part(name)}")

    async def connect(
        self, name: str, container: str, *, address: str = "", aliases: Sequence[str] = ()
    ) -> None:
        """Put a container into a network, at once if it runs."""
        settings: Json = {"Aliases": list(aliases)}
        if address:
            settings["IPAMConfig"] = {"IPv4Address": address}
        body = {"Container": container, "EndpointConfig": settings}
        await self._transport.call("POST", f"/networks/{part(name)}/connect", None, body)

    async def disconnect(self, name: str, container: str, *, force: bool = False) -> None:
        """Take a container out of a network."""
        body = {"Container": container, "Force": force}
        await self._transport.call("POST", f"/networks/{part(name)}/disconnect", None, body)


class Volumes:
    """All volumes of the daemon."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, filters: Filters | None = None) -> list[Json]:
        """Every volume, in the API's words."""
        answer = await self._transport.call("GET", "/volumes", {"filters": dict(filters or {})})
        return list(answer["Volumes"] or ())

    async def create(self, name: str = "", *, labels: Mapping[str, str] | None = None) -> Json:
        """Make a volume, or find the one of this name; without a name it is an anonymous one."""
        body = {"Name": name, "Labels": dict(labels or {})}
        made: Json = await self._transport.call("POST", "/volumes/create", None, body)
        return made

    async def inspect(self, name: str) -> Json:
        """One volume.

        Raises:
            NotFound: there is none.
        """
        found: Json = await self._transport.call("GET", f"/volumes/{part(name)}")
        return found

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume.

        Raises:
            Conflict: a container uses it.
        """
        await self._transport.call("DELETE", f"/volumes/{part(name)}", {"force": force})
