"""`sampan login`, `sampan logout`: credentials for a registry, checked by the daemon, kept in config.json."""

from __future__ import annotations

import os
import sys

from sampan.cli import credentials
from sampan.cli.app import line, warn
from sampan.cli.failures import ApiError, CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values

_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


def login(app: App, values: Values, arguments: list[str]) -> int:
    """Check credentials with the registry and keep them."""
    user, password = values.text("username"), values.text("password")
    if values.given("password"):
        warn("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
        if values.on("password-stdin"):
            raise CommandError("conflicting options: cannot specify both --password and --password-stdin")
    if values.on("password-stdin"):
        if not user:
            raise CommandError("the --password-stdin option requires --username to be set")
        data = sys.stdin.buffer.read()
        password = data.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    server = _server(arguments[0] if arguments else "")
    known = {} if user or password else credentials.stored(server)
    answer = _with_known(app, known) if known else None
    if answer is None:
        known = _asked(server, user, password)
        answer = _check(app, known)
    if answer.get("IdentityToken"):
        known["password"], known["identitytoken"] = "", answer["IdentityToken"]
    try:
        clear = credentials.store(known)
    except CommandError as error:
        raise CommandError(f"Error saving credentials: {error.message}") from None
    if clear:
        warn(
            f"\nWARNING! Your credentials are stored unencrypted in '{clear}'.\n"
            "Configure a credential helper to remove this warning. See\n"
            "https://docs.docker.com/go/credential-store/\n"
        )
    if answer.get("Status"):
        line(answer["Status"])
    return 0


def _server(text: str) -> str:
    host = text.split("://", 1)[-1].split("/", 1)[0]
    return credentials.INDEX_SERVER if not host or host in _HUB else host


def _check(app: App, known: dict[str, str]) -> dict[str, str]:
    answer = app.client.call("POST", "/auth", body=known)
    return {key: str(value) for key, value in (answer or {}).items()}


def _with_known(app: App, known: dict[str, str]) -> dict[str, str] | None:
    user = known.get("username", "")
    warn(f"Authenticating with existing credentials... [Username: {user}]")
    try:
        answer = _check(app, known)
    except ApiError as error:
        warn(f"Login did not succeed, error: {error.message}")
        return None
    warn("\n Info -> To login with a different account, run 'sampan logout' followed by 'sampan login'\n\n")
    return answer


def _asked(server: str, user: str, password: str) -> dict[str, str]:
    """What was given, and for what was not the user's answers on the terminal."""
    if not (user and password) and not os.isatty(0):
        raise CommandError("Error: Cannot perform an interactive login from a non TTY device")
    if not user:
        if server == credentials.INDEX_SERVER:
            line(
                "Log in with your Docker ID or email address to push and pull images from Docker Hub."
                " If you don't have a Docker ID, head over to https://hub.docker.com/ to create one."
            )
        sys.stdout.write("Username: ")
        sys.stdout.flush()
        user = sys.stdin.readline().strip()
        if not user:
            raise CommandError("username is required")
    if not password:
        from getpass import getpass

        password = getpass("Password: ")
        if not password:
            raise CommandError("password is required")
    return {"username": user, "password": password, "serveraddress": server}


def logout(app: App, values: Values, arguments: list[str]) -> int:
    """Forget credentials; the registry is not asked."""
    server = _server(arguments[0] if arguments else "")
    line(f"Removing login credentials for {server}")
    try:
        credentials.erase(server)
    except CommandError as error:
        warn(f"WARNING: could not erase credentials:\n{server}: {error.message}")
    return 0


COMMANDS = {
    "login": Command(
        "login",
        "[OPTIONS] [SERVER]",
        "Authenticate to a registry (Docker Hub when no server is named)",
        (
            Flag("password", "string", "Password or personal access token", "p"),
            Flag("password-stdin", "bool", "Take the password or token from stdin"),
            Flag("username", "string", "Username", "u"),
        ),
        login,
        most=1,
    ),
    "logout": Command(
        "logout",
        "[SERVER]",
        "Log out from a registry (Docker Hub when no server is named)",
        (),
        logout,
        most=1,
    ),
}
