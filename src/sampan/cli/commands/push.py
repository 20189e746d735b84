"""`sampan push`: an image, or all tags of a repository, to the registry that the name tells."""

from __future__ import annotations

from sampan.cli import trust
from sampan.cli.app import line
from sampan.cli.client import escape
from sampan.cli.credentials import header_for
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag
from sampan.cli.progress import show_progress
from sampan.cli.reference import is_id, split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Push, and show how far it is."""
    trust.need_none(values)
    if is_id(arguments[0]):
        raise CommandError(
            f"invalid repository name ({arguments[0]}), cannot specify 64-byte hexadecimal strings"
        )
    name, tag, digest = split(arguments[0])
    every, quiet = values.on("all-tags"), values.on("quiet")
    if digest:
        raise CommandError("cannot push a digest reference")
    if every and tag:
        raise CommandError("tag can't be used with --all-tags/-a")
    if not every and not tag:
        tag = "latest"
        if not quiet:
            line(f"Using default tag: {tag}")
    query: dict[str, Any] = {"tag": tag or None, "compression": values.text("compression") or None}
    if values.text("platform"):
        query["platform"] = _platform(values.text("platform"))
    answer = app.client.request(
        "POST", f"/images/{escape(name, safe='/:')}/push", query, headers=header_for(name)
    )
    show_progress(answer.values(), quiet=quiet)
    if quiet:
        line(f"{_full(name)}:{tag}" if tag else _full(name))
    return 0


def _platform(text: str) -> dict[str, str]:
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise CommandError(f"invalid platform {text!r}: expected os/arch[/variant]")
    return dict(zip(("os", "architecture", "variant"), parts, strict=False))


def _full(name: str) -> str:
    """The name with its registry, as docker prints it."""
    first, slash, _ = name.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return name
    return f"docker.io/{name}" if slash else f"docker.io/library/{name}"


COMMAND = Command(
    "push",
    "[OPTIONS] NAME[:TAG]",
    "Upload an image to a registry",
    (
        Flag("all-tags", "bool", "Push all tags of an image to the repository", "a"),
        Flag("compression", "string", 'Compress layers that are not yet: "gzip" or "zstd"'),
        trust.FLAG,
        Flag("platform", "string", 'Push only when the image is for this platform ("os/arch[/variant]")'),
        Flag("quiet", "bool", "Show no progress", "q"),
    ),
    run,
    least=1,
    most=1,
    aliases=("image push", "push"),
)
