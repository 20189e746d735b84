"""`sampan inspect`, and the `inspect` of containers, images, networks and volumes."""

from __future__ import annotations

from sampan.cli import platforms
from sampan.cli.app import out, warn
from sampan.cli.client import escape
from sampan.cli.failures import ApiError, CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.client import Client
    from sampan.cli.flags import Values

_TYPES = ("config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume")
# Tried in this order for a name of unknown kind.
_PATHS = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}
# Asked for by --type alone: the daemon says that it is no swarm manager, and that there are no plugins.
_OTHERS = {
    "config": "/configs/{}",
    "node": "/nodes/{}",
    "plugin": "/plugins/{}/json",
    "secret": "/secrets/{}",
    "service": "/services/{}",
    "task": "/tasks/{}",
}


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Inspect objects of any kind."""
    kind = values.text("type")
    if values.given("type") and not kind:
        raise CommandError('type is empty: must be one of "' + '", "'.join(_TYPES) + '"')
    if kind and kind not in _TYPES:
        raise CommandError(f'unknown type: "{kind}": must be one of "' + '", "'.join(_TYPES) + '"')
    sized = values.on("size")
    client = app.client

    def fetch(name: str) -> tuple[str, Any]:
        for one in [kind] if kind else _PATHS:
            try:
                found = get(client, one, name, sized and one == "container")
            except ApiError as error:
                if kind or error.status != 404:
                    raise
                continue
            if sized and one != "container":
                warn(f"WARNING: --size ignored for {one}")
            return one, found
        raise CommandError(f"Error: No such object: {name}")

    return show(values.text("format"), arguments, fetch)


def get(
    client: Client, kind: str, name: str, sized: bool = False, query: dict[str, Any] | None = None
) -> Any:
    """One object as the daemon describes it."""
    path = (_PATHS.get(kind) or _OTHERS[kind]).format(escape(name, "/:@" if kind == "image" else ""))
    return client.call("GET", path, {**(query or {}), "size": sized})


def show(
    form: str, names: list[str], fetch: Callable[[str], tuple[str, Any]], ours: bool = False, raw: bool = True
) -> int:
    """Print objects as JSON or by a template; what could not be found is told at the end.

    Args:
        fetch: the kind of the object of a name, and the object.
        ours: the objects are not the daemon's JSON but the client's own.
        raw: a template may use the names of the JSON too.
    """
    render = None
    if form and form != "json":
        from sampan.cli.template import inspect_template

        render = inspect_template(form, raw=raw and not ours)
    found: list[Any] = []  # texts of a template, else objects
    failures = []
    for name in names:
        try:
            kind, value = fetch(name)
            found.append(value if render is None else render(value, kind))
        except CommandError as error:
            failures.append(error.message)
    if render is not None:
        out("".join(f"{text}\n" for text in found) or "\n")
    else:
        from sampan.cli.jsontext import dump, html_safe, pretty

        text = dump(found) if form == "json" else pretty(found)
        out((html_safe(text) if ours else text) + "\n")
    if failures:
        warn("\n".join(failures))
        return 1
    return 0


def _kind(kind: str) -> Callable[[App, Values, list[str]], int]:
    def run_kind(app: App, values: Values, arguments: list[str]) -> int:
        client = app.client
        sized = kind == "container" and values.on("size")
        query: dict[str, Any] = {}
        if kind == "image" and values.text("platform"):
            query.update(platforms.query(values.text("platform")))
        if kind == "network" and values.on("verbose"):
            query["verbose"] = True
        return show(
            values.text("format"),
            arguments,
            lambda name: (kind, get(client, kind, name, sized, query)),
            raw=kind != "volume",  # of which docker's client knows the struct alone
        )

    return run_kind


_FORMAT = Flag("format", "string", "Output: 'json' or a Go template", "f")
_SIZE = Flag("size", "bool", "Show the size of the container's files", "s")

COMMAND = Command(
    "inspect",
    "[OPTIONS] NAME|ID [NAME|ID...]",
    "Return low-level information on objects of any kind",
    (_FORMAT, _SIZE, Flag("type", "string", "Inspect only objects of this kind")),
    run,
    least=1,
)

COMMANDS = {
    f"{kind} inspect": Command(
        f"{kind} inspect",
        f"[OPTIONS] {kind.upper()} [{kind.upper()}...]",
        f"Display detailed information on one or more {kind}s",
        (_FORMAT, *extra),
        _kind(kind),
        least=1,
    )
    for kind, extra in (
        ("container", (_SIZE,)),
        ("image", (Flag("platform", "string", "Inspect this platform (os[/arch[/variant]])"),)),
        ("network", (Flag("verbose", "bool", "Show diagnostics too", "v"),)),
        ("volume", ()),
    )
}
