"""Pulling, for the command `pull` and for those that need an image."""

from __future__ import annotations

from sampan.cli.credentials import header_for
from sampan.cli.progress import show_progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App


def pull(app: App, name: str, tag: str, digest: str, platform: str, fd: int, quiet: bool) -> None:
    """Have the daemon pull an image, and show how far it is.

    Args:
        name: the repository; without tag and digest all its tags are pulled.
        platform: what to take where there are several; "" leaves it to the daemon.
        fd: where to show the progress.

    Raises:
        ApiError, CommandError: it did not work.
    """
    query = {"fromImage": name, "tag": digest or tag or None, "platform": platform or None}
    answer = app.client.request("POST", "/images/create", query, b"", header_for(name))
    show_progress(answer.values(), fd, quiet)
