"""Programs that add commands to docker's command line, such as compose: `docker-NAME` in certain folders.

The folders are those of docker's own client, https://docs.docker.com/reference/cli/docker/ . A plugin gets
our whole command line and finds the daemon by DOCKER_HOST, or by docker's contexts, which we share.
"""

from __future__ import annotations

import os
import sys

from sampan.cli import docker_config
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from sampan.cli.app import App

_SYSTEM = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
_CALLED_BY = "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND"


def find(app: App, name: str) -> str:
    """The program of a plugin, "" where there is none."""
    if not (name.isascii() and name.isalnum() and name.islower()):
        return ""
    extra = app.config.get("cliPluginsExtraDirs") or []
    for folder in (os.path.join(docker_config.folder(), "cli-plugins"), *map(str, extra), *_SYSTEM):
        path = os.path.join(folder, f"docker-{name}")
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def run(app: App, path: str, words: Sequence[str]) -> NoReturn:
    """Become the plugin.

    Args:
        words: the whole command line, global flags included.

    Raises:
        CommandError: it cannot be executed.
    """
    from sampan.cli.hosts import DEFAULT_CONTEXT, chosen_context

    environment = {**os.environ, _CALLED_BY: sys.argv[0]}
    if chosen_context(app.options, app.config) == DEFAULT_CONTEXT:
        host = app.client.host
        if host.automatic:
            app.client.ping()  # starts the daemon, which a plugin would not
        environment["DOCKER_HOST"] = host.url
    sys.stdout.flush()
    try:
        os.execve(path, [path, *words], environment)
    except OSError as error:
        raise CommandError(f"exec {path}: {(error.strerror or '').lower()}") from None
