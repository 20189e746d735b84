"""`sampan cp`: files between a container and this machine, by docker's rules for paths."""

from __future__ import annotations

import os

from sampan.cli.client import escape
from sampan.cli.copying import places
from sampan.cli.copying.places import Place
from sampan.cli.copying.progress import Progress
from sampan.cli.failures import ApiError, CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values

_LINK, _DIRECTORY = 1 << 27, 1 << 31  # of Go's os.FileMode
_DEVICE, _IRREGULAR = 1 << 26, 1 << 19


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Copy one way or the other."""
    if not arguments[0]:
        raise CommandError("source can not be empty")
    if not arguments[1]:
        raise CommandError("destination can not be empty")
    (source_name, source), (target_name, target) = map(places.split_argument, arguments)
    if source_name and target_name:
        raise CommandError("copying between containers is not supported")
    quiet = values.on("quiet") if values.given("quiet") else not os.isatty(1)
    follow = values.on("follow-link")
    if source_name:
        _copy_out(app, source_name, source, target, follow, quiet)
    elif target_name:
        _copy_in(app, target_name, source, target, follow, quiet, values.on("archive"))
    else:
        raise CommandError("must specify at least one container source")
    return 0


def _path(container: str) -> str:
    return f"/containers/{escape(container)}/archive"


def _stat(header: str) -> dict[str, Any]:
    from binascii import a2b_base64

    from sampan.cli.jsontext import parse

    found: dict[str, Any] = parse(a2b_base64(header))
    return found


def _look(app: App, container: str, path: str) -> dict[str, Any] | None:
    """What is at a container's path; None when the daemon does not say."""
    try:
        answer = app.client.request("HEAD", _path(container), {"path": path})
    except ApiError:
        return None
    return _stat(answer.headers["x-docker-container-path-stat"])


def _target(path: str, link: str) -> str:
    return link if link.startswith("/") else os.path.join(places.split(path)[0], link)


def _copy_out(app: App, container: str, source: str, target: str, follow: bool, quiet: bool) -> None:
    if target != "-":
        target = places.local(target)
        _check_local(target)
    rebase = ""
    if follow:
        found = _look(app, container, source)
        if found is not None and found["mode"] & _LINK:
            source, rebase = places.rebase_name(source, _target(source, found["linkTarget"]))
    answer = app.client.request("GET", _path(container), {"path": source})
    if target == "-":
        from sampan.cli.streams import show_raw

        show_raw(answer.pieces())
        return
    found = _stat(answer.headers["x-docker-container-path-stat"])
    origin = Place(source, True, bool(found["mode"] & _DIRECTORY), rebase)
    from sampan.cli.copying.unpacking import unpack

    directory, _, new = places.arrange(origin, places.destination_place(target))
    old = places.split(source)[1] if source else "/"
    with Progress("Copying from container - ", quiet) as progress:
        try:
            unpack(progress.count(answer.pieces()), directory, old, new)
        except OSError as error:
            raise CommandError(f"{error.filename or directory}: {(error.strerror or '').lower()}") from None
    progress.done(target)


def _check_local(path: str) -> None:
    above = os.path.dirname(places.clean(path))
    if above and not os.path.exists(above):
        raise CommandError(f'invalid output path: directory "{above}" does not exist')
    if os.path.exists(path) and not os.path.isdir(path) and not os.path.isfile(path):
        raise CommandError(
            f'invalid output path: "{path}" must be a directory or a regular file: got a device'
        )


def _copy_in(
    app: App, container: str, source: str, target: str, follow: bool, quiet: bool, archive: bool
) -> None:
    destination = Place(target)
    found = _look(app, container, target)
    if found is not None and found["mode"] & _LINK:
        destination.path = _target(target, found["linkTarget"])
        found = _look(app, container, destination.path)
    if found is not None:
        if wrong := found["mode"] & (_DEVICE | _IRREGULAR):
            kind = "got a device" if wrong & _DEVICE else "got an irregular file"
            raise CommandError(
                f'destination "{container}:{target}" must be a directory or a regular file: {kind}'
            )
        destination.exists, destination.is_dir = True, bool(found["mode"] & _DIRECTORY)
    if source == "-":
        if not destination.is_dir:
            raise CommandError(f'destination "{container}:{target}" must be a directory')
        from sampan.cli.pieces import pieces_of

        directory, pieces = destination.path, pieces_of(0)
    else:
        from sampan.cli.copying.packing import archive_of

        origin = places.source_place(places.local(source), follow)
        directory, _, name = places.arrange(origin, destination)
        pieces = archive_of(origin.path, name)
    query = {"path": directory, "noOverwriteDirNonDir": "true", "copyUIDGID": "true" if archive else None}
    headers = {"Content-Type": "application/x-tar"}
    with Progress("Copying to container - ", quiet) as progress:
        app.client.request("PUT", _path(container), query, progress.count(pieces), headers).read()
    progress.done(f"{container}:{destination.path}")


COMMAND = Command(
    "cp",
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tsampan cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    (
        Flag("archive", "bool", "Give the files to the user that the container runs as", "a"),
        Flag("follow-link", "bool", "Copy what a link in SRC_PATH leads to", "L"),
        Flag("quiet", "bool", "Show no progress, which without a terminal is not shown anyway", "q"),
    ),
    run,
    least=2,
    most=2,
    aliases=("container cp", "cp"),
    details="Use '-' as the source to read a tar archive from stdin\n"
    "and unpack it in a directory of a container.\n"
    "Use '-' as the destination to write a tar archive of a\n"
    "container's file or directory to stdout.",
)
