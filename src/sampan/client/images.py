"""Images: pulled, listed, tagged, sent, removed, packed and unpacked."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from sampan.client.deadlines import deadline
from sampan.client.process import Input
from sampan.client.streams import Stream, json_values
from sampan.client.transport import Reply, Transport, part

Json = dict[str, Any]
Jsons = list[Json]
Lines = list[str]
Filters = Mapping[str, Sequence[str]]


class Images:
    """All images of the daemon."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, all: bool = False, filters: Filters | None = None) -> Jsons:
        """Every image, in the API's words."""
        query = {"all": all, "filters": dict(filters or {})}
        found: Jsons = await self._transport.call("GET", "/images/json", query)
        return found

    async def inspect(self, name: str) -> Json:
        """All that the daemon knows of an image.

        Raises:
            NotFound: there is none.
        """
        found: Json = await self._transport.call("GET", f"/images/{part(name)}/json")
        return found

    async def history(self, name: str) -> Jsons:
        """How it was made, the newest step first."""
        steps: Jsons = await self._transport.call("GET", f"/images/{part(name)}/history")
        return steps

    async def pull(
        self,
        name: str,
        *,
        timeout: float | None = None,
        platform: str | None = None,
        auth: Mapping[str, str] | None = None,
    ) -> Json:
        """Fetch an image and inspect it. Cancelled or late, the daemon stops to fetch.

        Args:
            name: with its tag or digest; `latest` without.
            timeout: seconds from now.
            platform: "linux/arm64" and the like.
            auth: `username` and `password`, or `identitytoken`, for its registry.
        """
        async with deadline(timeout, f"the pull of {name}"):
            async with self.pull_progress(name, platform=platform, auth=auth) as progress:
                async for _ in progress:
                    pass
            return await self.inspect(name)

    def pull_progress(
        self, name: str, *, platform: str | None = None, auth: Mapping[str, str] | None = None
    ) -> Stream[Json]:
        """Fetch an image and tell how far it is. Closed before its end, the daemon stops to fetch."""
        last = name.rpartition("/")[2]
        query = {"fromImage": name, "tag": None if ":" in last else "latest", "platform": platform}
        headers = _credentials(auth)
        return Stream(
            lambda: self._transport.request("POST", "/images/create", query, headers=headers), json_values
        )

    def push(self, name: str, *, auth: Mapping[str, str] | None = None) -> Stream[Json]:
        """Send an image to its registry and tell how far it is."""
        last = name.rpartition("/")[2]
        repository, tag = name.rsplit(":", 1) if ":" in last else (name, "latest")
        path, headers = f"/images/{part(repository)}/push", _credentials(auth or {})
        return Stream(
            lambda: self._transport.request("POST", path, {"tag": tag}, headers=headers), json_values
        )

    async def tag(self, name: str, new: str) -> None:
        """Give an image a further name."""
        last = new.rpartition("/")[2]
        repository, tag = new.rsplit(":", 1) if ":" in last else (new, "latest")
        await self._transport.call("POST", f"/images/{part(name)}/tag", {"repo": repository, "tag": tag})

    async def remove(self, name: str, *, force: bool = False) -> Jsons:
        """Remove a name, and with the last one the image; what was untagged and deleted.

        Raises:
            Conflict: a container uses it.
        """
        removed: Jsons = await self._transport.call("DELETE", f"/images/{part(name)}", {"force": force})
        return removed

    def save(self, name: str) -> Stream[bytes]:
        """An image as pieces of a tar archive, for `load`."""
        return Stream(lambda: self._transport.request("GET", f"/images/{part(name)}/get"), Reply.pieces)

    async def load(self, archive: Input) -> Lines:
        """Take the images of an archive; the daemon's lines on each."""
        headers = {"Content-Type": "application/x-tar"}
        reply = await self._transport.request(
            "POST", "/images/load", {"quiet": True}, archive, headers=headers
        )
        try:
            return [one["stream"].strip() async for one in json_values(reply) if "stream" in one]
        finally:
            reply.close()


def _credentials(auth: Mapping[str, str] | None) -> dict[str, str]:
    if auth is None:
        return {}
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(dict(auth)).encode()).decode()}
