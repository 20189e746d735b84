"""Create a container, pulling its image when it is missing and the policy says so."""

from __future__ import annotations

import os

from sampan.cli.app import warn
from sampan.cli.containers.config import create_body
from sampan.cli.failures import ApiError, CommandError
from sampan.cli.trust import need_none

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def create(app: App, values: Values, arguments: list[str], detached: bool) -> tuple[str, dict[str, Any]]:
    """Create what the flags describe; returns its id and the request's body."""
    image, command = arguments[0], arguments[1:]
    need_none(values)
    body = create_body(values, image, command, detached)
    _proxies(app, body)
    if values.on("use-api-socket"):
        from sampan.cli.containers.api_socket import add

        add(app, body)
    if not _is_id_like(image):
        from sampan.cli.reference import split

        split(image)
    cidfile = values.text("cidfile")
    if cidfile and os.path.exists(cidfile):
        raise CommandError(
            f"container ID file found, make sure the other container isn't running or delete {cidfile}"
        )
    policy, quiet = values.text("pull"), values.on("quiet")
    if policy not in ("always", "missing", "never"):
        raise CommandError(
            f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"'
        )
    if policy == "always":
        _pull(app, values, image, quiet)
    query = {"name": values.text("name") or None, "platform": values.text("platform") or None}
    try:
        answer = app.client.call("POST", "/containers/create", query, body)
    except ApiError as error:
        if error.status != 404 or policy != "missing" or not _lacks_image(error.detail):
            raise
        if not quiet:
            from sampan.cli.reference import familiar

            warn(f"Unable to find image '{familiar(image)}' locally")
        _pull(app, values, image, quiet)
        answer = app.client.call("POST", "/containers/create", query, body)
    if values.on("use-api-socket"):
        from sampan.cli.containers.api_socket import copy_credentials

        copy_credentials(app, answer["Id"])
    for warning in answer.get("Warnings") or ():
        warn(f"WARNING: {warning}")
    if cidfile:
        try:
            with open(cidfile, "x") as file:
                file.write(answer["Id"])
        except OSError as error:
            app.client.request("DELETE", f"/containers/{answer['Id']}", {"force": True}).read()
            raise CommandError(
                f"failed to create the container ID file: open {cidfile}: {(error.strerror or '').lower()}"
            ) from None
    return answer["Id"], body


_PROXIES = {
    "HTTP_PROXY": "httpProxy",
    "HTTPS_PROXY": "httpsProxy",
    "NO_PROXY": "noProxy",
    "FTP_PROXY": "ftpProxy",
    "ALL_PROXY": "allProxy",
}


def proxies_of(app: App) -> dict[str, str]:
    """The variables for the proxies of docker's config.json: those of this daemon, else the default ones."""
    proxies = app.config.get("proxies") or {}
    config = proxies.get(app.client.host.url) or proxies.get("default") or {}
    return {
        name: config[member]
        for variable, member in _PROXIES.items()
        if config.get(member)
        for name in (variable, variable.lower())
    }


def _proxies(app: App, body: dict[str, Any]) -> None:
    """Give the container the user's proxies; a variable that the user sets, or unsets, is left alone."""
    proxies = proxies_of(app)
    if not proxies:
        return
    env = body.get("Env") or []
    given = {pair.partition("=")[0] for pair in env}
    body["Env"] = env + [f"{name}={value}" for name, value in proxies.items() if name not in given]


def _lacks_image(detail: str) -> bool:
    return detail.lower().startswith("no such image") or "was found but its platform" in detail


def _is_id_like(image: str) -> bool:
    return image.startswith("sha256:") or (len(image) == 64 and set(image) <= set("0123456789abcdef"))


def _pull(app: App, values: Values, image: str, quiet: bool) -> None:
    from sampan.cli.pulling import pull
    from sampan.cli.reference import split

    name, tag, digest = split(image)
    pull(app, name, tag or "latest", digest, values.text("platform"), 2, quiet)
