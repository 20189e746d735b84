"""`sampan build`: a context and a Dockerfile become an image, by the daemon's classic builder."""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag
from sampan.cli.progress import show_progress
from sampan.cli.streams import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values

# flag -> query parameter that takes its value as it is.
_PLAIN = {
    "cgroup-parent": "cgroupparent",
    "cpu-period": "cpuperiod",
    "cpu-quota": "cpuquota",
    "cpu-shares": "cpushares",
    "cpuset-cpus": "cpusetcpus",
    "cpuset-mems": "cpusetmems",
    "isolation": "isolation",
    "memory": "memory",
    "memory-swap": "memswap",
    "network": "networkmode",
    "platform": "platform",
    "shm-size": "shmsize",
    "target": "target",
}
# Options of buildx's; docker's own client refuses them, too, when it builds without.
_BUILDKIT = (*("attest", "build-context", "cache-to", "output", "progress", "provenance", "sbom", "ssh"),)
_SHOWN_EVERY_BYTES = 512 << 10


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Send the context and show what comes of it."""
    from sampan.cli.building.source import source_of

    for name in _BUILDKIT:
        if values.given(name):
            raise CommandError(f"--{name} needs BuildKit, which is not offered: leave it out", 125)
    id_file = values.text("iidfile")
    if id_file:
        try:
            os.unlink(id_file)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise CommandError(f"removing image ID file: {(error.strerror or '').lower()}") from None
    query = _query(app, values)
    source = source_of(arguments[0], values.text("file"))
    query |= {"dockerfile": source.dockerfile or None, "remote": source.remote or None}
    quiet = values.on("quiet")
    body: Any = b""
    headers = {"Content-Type": "application/x-tar"}
    credentials = _credentials(app)
    if credentials:
        headers["X-Registry-Config"] = credentials
    if values.items("secret"):
        from sampan.cli.building import secrets

        headers[secrets.HEADER] = secrets.header(values.items("secret"), app.client.host)
    if source.pieces is not None:
        body = source.pieces if quiet else _counted(source.pieces)
        if values.on("compress"):
            body = _compressed(body)
    answer = app.client.request("POST", "/build", query, body, headers)
    image_id = _show(answer.values(), quiet)
    if id_file:
        if not image_id:
            raise CommandError(f"server did not provide an image ID. Cannot write {id_file}")
        try:
            with open(id_file, "w", encoding="utf-8") as file:
                file.write(image_id)
        except OSError as error:
            raise CommandError(f"open {id_file}: {(error.strerror or '').lower()}") from None
    return 0


def _query(app: App, values: Values) -> dict[str, Any]:
    from sampan.cli.containers.creating import proxies_of
    from sampan.cli.jsontext import dump

    arguments: dict[str, str | None] = dict(proxies_of(app))
    arguments |= {
        name: value if equals else None
        for name, equals, value in (text.partition("=") for text in values.items("build-arg"))
    }
    labels = dict(text.partition("=")[::2] for text in values.items("label"))
    query: dict[str, Any] = {
        "t": values.items("tag"),
        "q": values.on("quiet"),
        "nocache": values.on("no-cache"),
        "pull": "1" if values.on("pull") else None,
        "rm": "1" if values.on("rm") else "0",
        "forcerm": values.on("force-rm"),
        "squash": values.on("squash"),
        "buildargs": arguments,
        "labels": labels,
        "extrahosts": values.items("add-host"),
        "securityopt": values.items("security-opt"),
        "version": "1",
    }
    if values.items("cache-from"):
        query["cachefrom"] = dump(values.items("cache-from"))
    if values.items("ulimit"):
        from sampan.cli.containers.limits import parse_ulimit

        query["ulimits"] = dump([parse_ulimit(text) for text in values.items("ulimit")])
    for flag, parameter in _PLAIN.items():
        if values[flag]:
            query[parameter] = values[flag]
    return query


def _credentials(app: App) -> str:
    """The header with what the user has for registries; empty for nothing."""
    from sampan.cli import credentials

    found = {}
    for server in credentials.plain_entries():
        known = credentials.stored(server)
        if known:
            found[server] = known
    return credentials.encode(found) if found else ""  # type: ignore[arg-type]


def _counted(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Tell how much of the context is sent; at each step on a terminal, else at the end."""
    from sampan.cli.human import size

    terminal = os.isatty(1)
    sent = shown = 0

    def show(end: str) -> None:
        text = f"Sending build context to Sampan daemon  {size(sent, 4)}{end}"
        write_all(1, (("\r\x1b[2K" if terminal else "") + text).encode())

    for piece in pieces:
        yield piece
        sent += len(piece)
        if terminal and sent - shown >= _SHOWN_EVERY_BYTES:
            shown = sent
            show("")
    show("\r\n" if terminal else "\n")


def _compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    import zlib

    packer = zlib.compressobj(wbits=31)
    for piece in pieces:
        data = packer.compress(piece)
        if data:
            yield data
    yield packer.flush()


def _show(messages: Iterable[dict[str, Any]], quiet: bool) -> str:
    """Show what the daemon tells, or when it is to be quiet the image's id alone; returns that."""
    image_id = ""
    unsaid: list[str] = []

    def heard() -> Iterator[dict[str, Any]]:
        nonlocal image_id
        for message in messages:
            aux = message.get("aux")
            if isinstance(aux, dict) and aux.get("ID"):
                image_id = aux["ID"]
            if quiet and "stream" in message:
                unsaid.append(message["stream"])
            else:
                yield message

    try:
        show_progress(heard(), quiet=quiet)
    except CommandError:
        write_all(2, "".join(unsaid).encode("utf-8", "surrogateescape"))
        raise
    if quiet:
        text = "".join(unsaid)
        write_all(1, text.encode("utf-8", "surrogateescape"))
        image_id = text.strip()
    return image_id


COMMAND = Command(
    "build",
    "[OPTIONS] PATH | URL | -",
    "Build an image from a Dockerfile",
    (
        Flag("add-host", "list", 'Add a line to /etc/hosts ("host:ip")', check="extra-host"),
        Flag("build-arg", "list", "Set a build-time variable", check="env"),
        Flag("cache-from", "strings", "Images whose steps count as done"),
        Flag("cgroup-parent", "string", 'Parent cgroup of the containers of "RUN"'),
        Flag("compress", "bool", "Send the context compressed with gzip"),
        Flag("cpu-period", "int", "Period of the CFS in microseconds"),
        Flag("cpu-quota", "int", "Quota of the CFS in microseconds"),
        Flag("cpu-shares", "int", "Relative weight of CPU time", "c"),
        Flag("cpuset-cpus", "string", "CPUs to run on (0-3, 0,1)"),
        Flag("cpuset-mems", "string", "Memory nodes to run on (0-3, 0,1)"),
        Flag("disable-content-trust", "bool", "Skip image verification", default=True),
        Flag("file", "string", 'Name of the Dockerfile (default "PATH/Dockerfile")', "f"),
        Flag("force-rm", "bool", "Remove intermediate containers of failures, too"),
        Flag("iidfile", "string", "Write the image's ID to a file"),
        Flag("isolation", "string", "Isolation technology"),
        Flag("label", "list", "Set a label of the image", check="label"),
        Flag("memory", "bytes", "Memory limit", "m"),
        Flag("memory-swap", "bytes", "Limit of memory plus swap; '-1' for none", check="swap"),
        Flag("network", "string", 'Network of the containers of "RUN"', default="default"),
        Flag("no-cache", "bool", "Do every step again"),
        Flag("platform", "string", "Platform of base images"),
        Flag("pull", "bool", "Look for newer base images"),
        Flag("quiet", "bool", "Print the image's ID alone", "q"),
        Flag("rm", "bool", "Remove intermediate containers of what worked", default=True),
        Flag("secret", "list", 'Secret of the build ("id=NAME[,src=FILE|,env=VARIABLE]")'),
        Flag("security-opt", "strings", "Security options"),
        Flag("shm-size", "bytes", 'Size of "/dev/shm"'),
        Flag("squash", "bool", "Make one layer of the new ones"),
        Flag("tag", "list", 'Name of the image, "name:tag"', "t", check="tag"),
        Flag("target", "string", "Stage to build"),
        Flag("ulimit", "ulimit", "Resource limits"),
        *(Flag(name, "list", "BuildKit's", hidden=True) for name in _BUILDKIT),
    ),
    run,
    least=1,
    most=1,
    aliases=("image build", "build", "builder build"),
)
