"""`sampan install-docker-alias`: a link named `docker` to this program, so that what calls docker runs us."""

from __future__ import annotations

import os
import sys

from sampan.cli.app import line, warn
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Make the link, or take it away."""
    ours = this_program()
    folder = os.path.abspath(os.path.expanduser(values.text("dir") or os.path.dirname(ours)))
    link = os.path.join(folder, "docker")
    there = os.path.lexists(link)
    is_ours = there and os.path.realpath(link) == os.path.realpath(ours)
    if values.on("remove"):
        if not there:
            raise CommandError(f"there is no {link}")
        if not is_ours:
            raise CommandError(f"{link} is not a link to {ours}: it stays")
        os.unlink(link)
        line(f"Removed {link}")
        return 0
    if there and not is_ours and not values.on("force"):
        raise CommandError(
            f"{link} is there and is not ours: --force replaces it, --dir names another folder"
        )
    if not is_ours:
        try:
            os.makedirs(folder, exist_ok=True)
            _replace(ours, link)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise CommandError(f"cannot make {link}: {reason}; --dir names another folder") from None
    line(f"{link} -> {ours}")
    _tell_of_others(link, folder)
    return 0


def this_program() -> str:
    """The path of the command that was run.

    Raises:
        CommandError: it was run in a way that has none.
    """
    name = sys.argv[0]
    if "/" not in name:
        import shutil

        name = shutil.which(name) or ""
    if not name or name.endswith(".py") or not os.access(name, os.X_OK):
        raise CommandError("this was not run by a command named sampan, so there is nothing to link to")
    path = os.path.abspath(name)
    return os.path.realpath(path) if os.path.basename(path) == "docker" else path


def _replace(ours: str, link: str) -> None:
    part = f"{link}.{os.getpid()}"
    os.symlink(ours, part)
    try:
        os.rename(part, link)
    except OSError:
        os.unlink(part)
        raise


def _tell_of_others(link: str, folder: str) -> None:
    """Say when a shell would not find the link, or another docker first."""
    import shutil

    first = shutil.which("docker")
    if first is None:
        warn(f"WARNING: {folder} is not in PATH")
    elif not os.path.samefile(first, link):
        warn(f"WARNING: {first} comes first in PATH")


COMMAND = Command(
    "install-docker-alias",
    "[OPTIONS]",
    "Make a link named docker to this program",
    (
        Flag("dir", "string", "Folder of the link, where it is not to lie beside this program"),
        Flag("force", "bool", "Replace a docker that is there", "f"),
        Flag("remove", "bool", "Take the link away"),
    ),
    run,
    most=0,
)
