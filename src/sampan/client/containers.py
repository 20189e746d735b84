"""Containers: made, found, run to their end; each a handle whose methods are the API's verbs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sampan.client.deadlines import deadline, to_its_end, undo
from sampan.client.images import Images
from sampan.client.process import Attached, Completed, Input, Process, words
from sampan.client.streams import Output, Stream, json_values, output
from sampan.client.transport import Reply, Transport, part
from sampan.errors import Conflict, NotFound

Json = dict[str, Any]
Filters = Mapping[str, Sequence[str]]


class Container:
    """One container.

    Attributes:
        id: 64 hexadecimal digits, or the name that it was asked for by.
        attributes: what the call that found it told of it, in the API's words; `inspect` tells anew.
    """

    def __init__(self, transport: Transport, id: str, attributes: Json | None = None) -> None:
        self._transport = transport
        self.id = id
        self.attributes = attributes or {}

    def __repr__(self) -> str:
        return f"<Container {self.id[:12]}>"

    def _path(self, rest: str = "") -> str:
        return f"/containers/{part(self.id)}{rest}"

    async def _post(self, verb: str, **query: Any) -> None:
        await self._transport.call("POST", self._path(f"/{verb}"), query)

    async def inspect(self) -> Json:
        """All that the daemon knows of it.

        Raises:
            NotFound: it is gone.
        """
        self.attributes = await self._transport.call("GET", self._path("/json"))
        return self.attributes

    async def start(self) -> None:
        """Start it. One that runs stays as it is.

        Raises:
            SampanError: its program could not be started.
        """
        await self._post("start")

    async def stop(self, grace: int | None = None) -> None:
        """Send its stop signal, and SIGKILL `grace` seconds later (None: as it was made for, mostly 10)."""
        await self._post("stop", t=grace)

    async def restart(self, grace: int | None = None) -> None:
        """Stop it as `stop` does, and start it."""
        await self._post("restart", t=grace)

    async def kill(self, signal: str | int = "SIGKILL") -> None:
        """Send a signal to its first process.

        Raises:
            Conflict: it does not run.
        """
        await self._post("kill", signal=signal)

    async def pause(self) -> None:
        """Freeze all its processes."""
        await self._post("pause")

    async def unpause(self) -> None:
        """Thaw them."""
        await self._post("unpause")

    async def rename(self, name: str) -> None:
        """Give it another name."""
        await self._post("rename", name=name)

    async def resize(self, rows: int, columns: int) -> None:
        """Change the size of its terminal."""
        await self._post("resize", h=rows, w=columns)

    async def update(self, **settings: Any) -> None:
        """Change limits or restart policy while it runs, in the API's words (`Memory=64 << 20`)."""
        await self._transport.call("POST", self._path("/update"), None, settings)

    async def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it; with `force` also while it runs, with `volumes` its anonymous volumes too."""
        await self._transport.call("DELETE", self._path(), {"force": force, "v": volumes})

    async def wait(self, *, timeout: float | None = None, condition: str = "not-running") -> int:
        """Its exit code once it does not run (or as `condition`: "next-exit", "removed").

        Raises:
            DeadlineExceeded: not within `timeout` seconds; the container runs on.
        """
        async with deadline(timeout, f"container {self.id[:12]}"):
            answer = await self._transport.call("POST", self._path("/wait"), {"condition": condition})
        return int(answer["StatusCode"])

    async def top(self, ps_args: str | None = None) -> Json:
        """Its processes, as ps lists them."""
        answer: Json = await self._transport.call("GET", self._path("/top"), {"ps_args": ps_args})
        return answer

    def logs(
        self,
        *,
        follow: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        timestamps: bool = False,
    ) -> Stream[Output]:
        """What it has written, and with `follow` what it will.

        Args:
            tail: only that many last lines.
            since, until: seconds since 1970.
        """
        query = {
            "follow": follow,
            "stdout": stdout,
            "stderr": stderr,
            "tail": tail,
            "since": since,
            "until": until,
            "timestamps": timestamps,
        }
        return Stream(lambda: self._transport.request("GET", self._path("/logs"), query), output)

    def stats(self) -> Stream[Json]:
        """What it uses, about once a second."""
        query = {"stream": True}
        return Stream(lambda: self._transport.request("GET", self._path("/stats"), query), json_values)

    async def attach(
        self, *, stdin: bool = False, stdout: bool = True, stderr: bool = True, logs: bool = False
    ) -> Attached:
        """Its first process's streams; before its start, to have them from the first byte on.

        Args:
            stdin: take part in its input, if it was made with `stdin_open`.
            logs: begin with what it has written already.
        """
        query = {"stream": True, "stdin": stdin, "stdout": stdout, "stderr": stderr, "logs": logs}
        return Attached(await self._transport.request("POST", self._path("/attach"), query, upgrade=True))

    async def exec(
        self,
        command: str | Iterable[str],
        *,
        input: Input | None = None,
        timeout: float | None = None,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
        working_dir: str = "",
        user: str = "",
        privileged: bool = False,
    ) -> Completed:
        """Run a further command to its end. Cancelled or late, it is killed with all that it has started.

        Args:
            input: for its standard input, which is empty otherwise.
            timeout: seconds from now.
            check: raise CommandFailed for an exit code other than 0.

        Raises:
            DeadlineExceeded, CommandFailed.
        """
        argv = words(command)
        async with deadline(timeout, argv[0]):
            process = await self.open_exec(
                argv,
                stdin=input is not None,
                environment=environment,
                working_dir=working_dir,
                user=user,
                privileged=privileged,
            )
            async with process:
                stdout, stderr = await process.communicate(input)
                done = Completed(await process.wait(), stdout, stderr)
        return done.check(argv[0]) if check else done

    async def open_exec(
        self,
        command: str | Iterable[str],
        *,
        stdin: bool = True,
        tty: bool = False,
        environment: Mapping[str, str] | None = None,
        working_dir: str = "",
        user: str = "",
        privileged: bool = False,
    ) -> Process:
        """Start a further command and stay on its streams: `async with await c.open_exec(…) as process`."""
        body = {
            "Cmd": words(command),
            "AttachStdin": stdin,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": tty,
            "Env": assignments(environment),
            "WorkingDir": working_dir,
            "User": user,
            "Privileged": privileged,
        }
        made = await self._transport.call("POST", self._path("/exec"), None, body)
        return await Process.start(self._transport, made["Id"], tty)

    async def put_archive(self, path: str, archive: Input) -> None:
        """Unpack a tar archive in the directory `path` of the container.

        Args:
            archive: its bytes, plain or compressed, whole or in pieces.
        """
        headers = {"Content-Type": "application/x-tar"}
        reply = await self._transport.request(
            "PUT", self._path("/archive"), {"path": path}, archive, headers=headers
        )
        await reply.read()

    def get_archive(self, path: str) -> Stream[bytes]:
        """A file or directory of the container as pieces of a tar archive."""
        query = {"path": path}
        return Stream(lambda: self._transport.request("GET", self._path("/archive"), query), Reply.pieces)

    def export(self) -> Stream[bytes]:
        """Its whole file system as pieces of a tar archive."""
        return Stream(lambda: self._transport.request("GET", self._path("/export")), Reply.pieces)

    async def commit(self, image: str) -> str:
        """Make an image of its present state; the image's id."""
        repository, _, tag = image.partition(":") if "/" not in image.rpartition(":")[2] else (image, "", "")
        query = {"container": self.id, "repo": repository, "tag": tag or "latest"}
        return str((await self._transport.call("POST", "/commit", query, {}))["Id"])


class Containers:
    """All containers of the daemon."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, all: bool = False, filters: Filters | None = None) -> list[Container]:
        """Those that run, with `all` the others too."""
        query = {"all": all, "filters": dict(filters or {})}
        found = await self._transport.call("GET", "/containers/json", query)
        return [Container(self._transport, one["Id"], one) for one in found]

    async def get(self, name: str) -> Container:
        """The container of this name or id.

        Raises:
            NotFound: there is none.
        """
        found = Container(self._transport, name)
        found.id = (await found.inspect())["Id"]
        return found

    async def create(
        self,
        image: str,
        command: str | Iterable[str] | None = None,
        *,
        name: str | None = None,
        entrypoint: str | Iterable[str] | None = None,
        environment: Mapping[str, str] | None = None,
        working_dir: str = "",
        user: str = "",
        labels: Mapping[str, str] | None = None,
        tty: bool = False,
        stdin_open: bool = False,
        binds: Iterable[str] = (),
        network_mode: str = "",
        memory: int = 0,
        auto_remove: bool = False,
        pull: bool = True,
        config: Json | None = None,
        host_config: Json | None = None,
    ) -> Container:
        """Make a container, not yet started. Cancelled, it leaves none.

        Args:
            command, entrypoint: None for the image's own.
            binds: "/host/path:/path[:ro]" or "volume:/path[:ro]".
            network_mode: "bridge", "host", "none" or "container:NAME".
            memory: its limit in bytes, 0 for none.
            pull: fetch the image when it is not there.
            config, host_config: everything else, in the words of the API's `POST /containers/create`.

        Raises:
            NotFound: no such image.
            Conflict: the name is taken.
            InvalidParameter, Unsupported: an option is wrong, or not offered.
        """
        body: Json = {
            "Image": image,
            "Env": assignments(environment),
            "WorkingDir": working_dir,
            "User": user,
            "Labels": dict(labels or {}),
            "Tty": tty,
            "OpenStdin": stdin_open,
            "StdinOnce": stdin_open,
            "AttachStdin": stdin_open,
            "AttachStdout": True,
            "AttachStderr": True,
            **(config or {}),
        }
        if command is not None:
            body["Cmd"] = words(command)
        if entrypoint is not None:
            body["Entrypoint"] = words(entrypoint)
        limits: Json = {"Binds": list(binds), "AutoRemove": auto_remove}
        if network_mode:
            limits["NetworkMode"] = network_mode
        if memory:
            limits["Memory"] = memory
        body["HostConfig"] = {**limits, **(host_config or {})}
        try:
            return await self._create(name, body)
        except NotFound:
            if not pull:
                raise
        await Images(self._transport).pull(image)
        return await self._create(name, body)

    async def _create(self, name: str | None, body: Json) -> Container:
        made: list[Container] = []

        async def make() -> None:
            answer = await self._transport.call("POST", "/containers/create", {"name": name}, body)
            made.append(Container(self._transport, answer["Id"]))

        try:
            await to_its_end(make())
        except asyncio.CancelledError as error:
            if made:
                await undo(error, made[0].remove(force=True, volumes=True))
            raise
        return made[0]

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
        """Run a command in a new container to its end; the container is removed, also when we are cancelled.

        Args:
            input: for its standard input, which is empty otherwise.
            timeout: seconds from now, fetching the image included.
            check: raise CommandFailed for an exit code other than 0.
            options: those of `create`.

        Raises:
            DeadlineExceeded, CommandFailed, and what `create` and `start` raise.
        """
        async with deadline(timeout, f"a container of {image}"):
            container = await self.create(
                image, command, stdin_open=input is not None, auto_remove=True, **options
            )
            try:
                done = await self._to_its_end(container, input)
            except BaseException as error:
                await undo(error, _discard(container))
                raise
        return done.check(f"a container of {image}") if check else done

    async def _to_its_end(self, container: Container, input: Input | None) -> Completed:
        async with await container.attach(stdin=input is not None) as streams:
            # The head of the answer says that the daemon waits, so that no end can be missed.
            path = f"/containers/{container.id}/wait"
            waiting = await self._transport.request("POST", path, {"condition": "removed"})
            ending = asyncio.ensure_future(waiting.read())
            copying: asyncio.Future[tuple[bytes, bytes]] | None = None
            try:
                await container.start()
                copying = asyncio.ensure_future(streams.communicate(input))
                # Both: the streams are the container's own, and stay open when the daemon dies.
                await asyncio.wait([ending, copying], return_when=asyncio.FIRST_EXCEPTION)
                if copying.done():
                    copying.result()
                answer = json.loads(await ending)
                return Completed(int(answer["StatusCode"]), *await copying)
            finally:
                begun = [task for task in (ending, copying) if task is not None]
                for task in begun:
                    task.cancel()
                await asyncio.wait(begun)
                waiting.close()

    async def prune(self, filters: Filters | None = None) -> Json:
        """Remove all that do not run."""
        query = {"filters": dict(filters or {})}
        answer: Json = await self._transport.call("POST", "/containers/prune", query)
        return answer


async def _discard(container: Container) -> None:
    """Remove a container that may be about to remove itself."""
    with suppress(NotFound, Conflict):
        await container.remove(force=True, volumes=True)
    with suppress(NotFound):
        await container.wait(condition="removed")


def assignments(environment: Mapping[str, str] | None) -> list[str]:
    """NAME=value, as the API wants them."""
    return [f"{name}={value}" for name, value in (environment or {}).items()]
