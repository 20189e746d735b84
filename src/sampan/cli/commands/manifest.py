"""`sampan manifest`: the program `sampan.manifests` takes this one's place, with the order on its stdin."""

from __future__ import annotations

import os
import sys

from sampan.cli import docker_config
from sampan.cli.autostart import search_path
from sampan.cli.credentials import header_for
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values

_INSECURE = Flag("insecure", "bool", "Let the registry have an unknown certificate or none")


def _become(command: str, values: Values, arguments: list[str], flags: tuple[Flag, ...]) -> int:
    from sampan.cli.jsontext import dump

    order = {
        "command": command,
        "arguments": arguments,
        "flags": {flag.name: _value(values, flag) for flag in flags if values.given(flag.name)},
        "directory": os.path.join(docker_config.folder(), "manifests"),
        "credentials": {name: header_for(name)["X-Registry-Auth"] for name in arguments},
    }
    file = os.memfd_create("order")
    os.write(file, dump(order).encode("utf-8", "surrogateescape"))
    os.lseek(file, 0, os.SEEK_SET)
    os.dup2(file, 0)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    words = [sys.executable, "-m", "sampan.manifests"]
    sys.stdout.flush()
    os.execve(words[0], words, {**os.environ, "PYTHONPATH": search_path(root)})


def _value(values: Values, flag: Flag) -> object:
    if flag.kind == "bool":
        return values.on(flag.name)
    return values.items(flag.name) if flag.kind == "strings" else values.text(flag.name)


def _command(
    name: str, usage: str, summary: str, flags: tuple[Flag, ...], least: int, most: int | None
) -> Command:
    def run(app: App, values: Values, arguments: list[str]) -> int:
        return _become(name, values, arguments, flags)

    return Command(f"manifest {name}", usage, summary, flags, run, least=least, most=most)


COMMANDS = {
    "annotate": _command(
        "annotate",
        "[OPTIONS] MANIFEST_LIST MANIFEST",
        "Add additional information to a local image manifest",
        (
            Flag("arch", "string", "Architecture"),
            Flag("os", "string", "Operating system"),
            Flag("os-features", "strings", "Features of the operating system"),
            Flag("os-version", "string", "Version of the operating system"),
            Flag("variant", "string", "Variant of the architecture"),
        ),
        2,
        2,
    ),
    "create": _command(
        "create",
        "MANIFEST_LIST MANIFEST [MANIFEST...]",
        "Create a local manifest list for annotating and pushing to a registry",
        (Flag("amend", "bool", "Add to a list that exists", "a"), _INSECURE),
        2,
        None,
    ),
    "inspect": _command(
        "inspect",
        "[OPTIONS] [MANIFEST_LIST] MANIFEST",
        "Display an image manifest, or manifest list",
        (_INSECURE, Flag("verbose", "bool", "Tell names, layers and platforms too", "v")),
        1,
        2,
    ),
    "push": _command(
        "push",
        "[OPTIONS] MANIFEST_LIST",
        "Push a manifest list to a repository",
        (_INSECURE, Flag("purge", "bool", "Remove the local manifest list after the push", "p")),
        1,
        1,
    ),
    "rm": _command(
        "rm",
        "MANIFEST_LIST [MANIFEST_LIST...]",
        "Delete one or more manifest lists from local storage",
        (),
        1,
        None,
    ),
}
