"""--use-api-socket: the daemon's socket and the user's credentials inside the container."""

from __future__ import annotations

import io

from sampan.cli.client import escape
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App

_SOCKET = "/var/run/docker.sock"
_FOLDER = "/run/secrets/docker"


def add(app: App, body: dict[str, Any]) -> None:
    """Mount the socket, and say where the credentials will be.

    Raises:
        CommandError: the daemon is not on a unix socket.
    """
    host = app.client.host
    if not host.path:
        raise CommandError(
            "flag --use-api-socket can only be used with unix sockets: "
            f"docker endpoint {host.url} incompatible"
        )
    mounts = body["HostConfig"].setdefault("Mounts", [])
    mounts.append({"Type": "bind", "Source": host.path, "Target": _SOCKET})
    body["Env"] = [*(body.get("Env") or []), f"DOCKER_CONFIG={_FOLDER}"]


def copy_credentials(app: App, container: str) -> None:
    """Write a config.json with all of the user's credentials into a created container, for its root alone."""
    import tarfile

    from sampan.cli.credentials import plain_entries
    from sampan.cli.jsontext import pretty

    data = pretty({"auths": dict(sorted(plain_entries().items()))}, "\t").encode("utf-8", "surrogateescape")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo(f"{_FOLDER[1:]}/config.json")
        member.mode, member.size = 0o600, len(data)
        tar.addfile(member, io.BytesIO(data))
    app.client.request(
        "PUT",
        f"/containers/{escape(container)}/archive",
        {"path": "/", "noOverwriteDirNonDir": "true"},
        archive.getvalue(),
        {"Content-Type": "application/x-tar"},
    ).read()
