"""`sampan context create|update|rm|use|export|import`: contexts of docker's store made, changed and moved."""

from __future__ import annotations

import os
import sys

from sampan.cli import docker_config
from sampan.cli.app import line, warn
from sampan.cli.contexts import endpoints, store
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag
from sampan.cli.hosts import DEFAULT_CONTEXT, chosen_context, environment_host
from sampan.cli.pieces import pieces_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def create(app: App, values: Values, arguments: list[str]) -> int:
    """Make a context: of --docker, or as another one is."""
    name = arguments[0]
    store.check_name(name)
    if store.exists(name):
        raise CommandError(f'context "{name}" already exists')
    description = values.text("description")
    if values.given("docker") and not values.text("from"):
        endpoint, tls = _endpoint(app, values)
        metadata = {"Description": description} if description else {}
        made = store.Context(name, metadata, {store.ENDPOINT: endpoint}, {})
        store.save(made, {store.ENDPOINT: tls})
    else:
        origin_name = values.text("from") or chosen_context(app.options, app.config)
        origin = endpoints.found(origin_name, app.options)
        metadata = dict(origin.metadata)
        if origin_name == DEFAULT_CONTEXT:
            metadata["Description"] = endpoints.DEFAULT_DESCRIPTION
        if description:
            metadata["Description"] = description
        made = store.Context(name, metadata, origin.endpoints, {})
        all_tls = endpoints.tls_of(origin_name, app.options)
        if values.given("docker"):
            endpoint, tls = _endpoint(app, values)
            made.endpoints = {**origin.endpoints, store.ENDPOINT: endpoint}
            all_tls[store.ENDPOINT] = tls
        store.save(made, all_tls)
    line(name)
    warn(f'Successfully created context "{name}"')
    return 0


def update(app: App, values: Values, arguments: list[str]) -> int:
    """Change what the flags name; --docker replaces the endpoint with its TLS files."""
    name = arguments[0]
    store.check_name(name)
    context = store.load(name)
    if values.text("description"):
        context.metadata["Description"] = values.text("description")
    tls = None
    if values.given("docker"):
        context.endpoints[store.ENDPOINT], files = _endpoint(app, values)
        tls = {**store.tls_data(name), store.ENDPOINT: files}
    store.save(context, tls)
    line(name)
    warn(f'Successfully updated context "{name}"')
    return 0


def _endpoint(app: App, values: Values) -> tuple[dict[str, Any], dict[str, bytes]]:
    try:
        return endpoints.endpoint(endpoints.pairs(values.items("docker")), app.options)
    except CommandError as error:
        raise CommandError(f"unable to create docker endpoint config: {error.message}") from None


def remove(app: App, values: Values, arguments: list[str]) -> int:
    """Remove contexts; the one in use only with --force, and then none is in use."""
    current = chosen_context(app.options, app.config)
    failures = []
    for name in arguments:
        try:
            _remove(name, current, values.on("force"))
            line(name)
        except CommandError as error:
            failures.append(error.message)
    if failures:
        raise CommandError("\n".join(failures))
    return 0


def _remove(name: str, current: str, force: bool) -> None:
    if name == DEFAULT_CONTEXT:
        raise CommandError('context "default" cannot be removed')
    if not store.exists(name) and not force:
        raise CommandError(f'context "{name}" does not exist')
    if name == current:
        if not force:
            raise CommandError(f'context "{name}" is in use, set -f flag to force remove')
        _make_current("")
    store.remove(name)


def use(app: App, values: Values, arguments: list[str]) -> int:
    """Make a context the one that commands use."""
    name = arguments[0]
    if name != DEFAULT_CONTEXT:
        store.load(name)
    _make_current("" if name == DEFAULT_CONTEXT else name)
    line(name)
    warn(f'Current context is now "{name}"')
    if name != DEFAULT_CONTEXT and environment_host():
        variable = "SAMPAN_HOST" if os.environ.get("SAMPAN_HOST") else "DOCKER_HOST"
        warn(
            f'Warning: {variable} environment variable overrides the active context. To use "{name}", '
            f"either set the global --context flag, or unset {variable} environment variable."
        )
    return 0


def _make_current(name: str) -> None:
    config = docker_config.load()
    if config.get("currentContext", "") == name:
        return
    if name:
        config["currentContext"] = name
    else:
        del config["currentContext"]
    docker_config.save(config)


def export(app: App, values: Values, arguments: list[str]) -> int:
    """Write a context to an archive: FILE, or standard output for `-`."""
    from sampan.cli.contexts.archive import pack

    name = arguments[0]
    path = arguments[1] if len(arguments) > 1 else f"{name}.dockercontext"
    if path == "-" and os.isatty(1):
        raise CommandError("cowardly refusing to export to a terminal, specify a file path")
    context = endpoints.found(name, app.options)
    if name == DEFAULT_CONTEXT:
        context.metadata = {"Description": endpoints.DEFAULT_DESCRIPTION}
    data = pack(context, endpoints.tls_of(name, app.options))
    if path == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return 0
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(data)
    warn(f'Written file "{path}"')
    return 0


def import_(app: App, values: Values, arguments: list[str]) -> int:
    """Make a context of an archive: FILE, or standard input for `-`."""
    from sampan.cli.contexts.archive import unpack

    name, path = arguments
    store.check_name(name)
    if store.exists(name):
        raise CommandError(f'context "{name}" already exists')
    data = b"".join(pieces_of(0)) if path == "-" else store.read_file(path)
    context, tls = unpack(data, name)
    store.save(context, tls)
    line(name)
    warn(f'Successfully imported context "{name}"')
    return 0


_ENDPOINT_HELP = """Docker endpoint config:

NAME                DESCRIPTION
from                Copy named context's Docker endpoint configuration
host                Docker endpoint on which to connect
ca                  Trust certs signed only by this CA
cert                Path to TLS certificate file
key                 Path to TLS key file
skip-tls-verify     Skip TLS certificate validation

Example:

$ sampan context {} mine --docker "host=tcp://mine:2376,ca=~/ca.pem,cert=~/cert.pem,key=~/key.pem"
"""
_DESCRIPTION = Flag("description", "string", "Description of the context")
_DOCKER = Flag("docker", "stringToString", "Set the endpoint", shown="[]")


def _writing(
    name: str, summary: str, action: Callable[[App, Values, list[str]], int], *more: Flag
) -> Command:
    """A command that describes a context."""
    return Command(
        f"context {name}",
        "[OPTIONS] CONTEXT",
        summary,
        (_DESCRIPTION, _DOCKER, *more),
        action,
        least=1,
        most=1,
        details=_ENDPOINT_HELP.format(name).rstrip(),
    )


COMMANDS = {
    "create": _writing(
        "create", "Create a context", create, Flag("from", "string", "Make it as this context is")
    ),
    "update": _writing("update", "Update a context", update),
    "rm": Command(
        "context rm",
        "CONTEXT [CONTEXT...]",
        "Remove one or more contexts",
        (Flag("force", "bool", "Remove a context that is in use", "f"),),
        remove,
        least=1,
        aliases=("context rm", "context remove"),
    ),
    "use": Command("context use", "CONTEXT", "Set the current context", (), use, least=1, most=1),
    "export": Command(
        "context export",
        "[OPTIONS] CONTEXT [FILE|-]",
        "Export a context to a tar archive FILE or a tar stream on STDOUT.",
        (),
        export,
        least=1,
        most=2,
    ),
    "import": Command(
        "context import",
        "CONTEXT FILE|-",
        "Import a context from a tar or zip file",
        (),
        import_,
        least=2,
        most=2,
    ),
}
