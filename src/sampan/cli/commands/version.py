"""`sampan version`: of this client and of the daemon."""

from __future__ import annotations

import os
import sys

from sampan import __version__
from sampan.cli.app import out
from sampan.cli.client import NEWEST
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag
from sampan.cli.hosts import chosen_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}

# What is always so of this client.
CLIENT = {
    "Version": __version__,
    "DefaultAPIVersion": NEWEST,
    "PythonVersion": sys.version.split()[0],
    "Os": "linux",
    "Arch": _MACHINES.get(os.uname().machine, os.uname().machine),
}


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Show both versions; the client's also when no daemon answers."""
    server, failure = None, None
    try:
        server = app.client.call("GET", "/version")
    except CommandError as error:
        failure = error
    spoken = app.client.version if server else NEWEST
    client = {**CLIENT, "ApiVersion": spoken, "Context": chosen_context(app.options, app.config)}
    form = values.text("format")
    if form:
        from sampan.cli.template import object_template

        _format_times(server)
        object_template(form, {"Client": client, "Server": server}, "version", "version")
    else:
        out(_client_text(client) + (_server_text(server) if server else ""))
    if failure is not None:
        raise failure
    return 0


def _format_times(server: dict[str, Any] | None) -> None:
    """Times of building, as the text has them."""
    for component in (server or {}).get("Components") or ():
        details = component.get("Details") or {}
        if "BuildTime" in details:
            details["BuildTime"] = _built(details["BuildTime"])


def _client_text(client: dict[str, Any]) -> str:
    api = client["ApiVersion"]
    if api != client["DefaultAPIVersion"]:
        api = f"{api} (downgraded from {client['DefaultAPIVersion']})"
    lines = [
        "Client:",
        f" Version:           {client['Version']}",
        f" API version:       {api}",
        f" Python version:    {client['PythonVersion']}",
        f" OS/Arch:           {client['Os']}/{client['Arch']}",
        f" Context:           {client['Context']}",
    ]
    return "\n".join(lines) + "\n"


def _server_text(server: dict[str, Any]) -> str:
    platform = (server.get("Platform") or {}).get("Name", "")
    lines = ["", f"Server: {platform}".rstrip() if platform else "Server:"]
    components = server.get("Components") or [
        {"Name": "Engine", "Version": server.get("Version", ""), "Details": server}
    ]
    for component in components:
        details = component.get("Details") or {}
        lines.append(f" {component['Name']}:")
        facts = [("Version", component.get("Version", ""))]
        if component["Name"] == "Engine":
            least = details.get("MinAPIVersion", "")
            language = "Python version" if details.get("PythonVersion") else "Go version"
            facts += [
                ("API version", f"{details.get('ApiVersion', '')} (minimum version {least})"),
                (language, details.get("PythonVersion") or details.get("GoVersion", "")),
                ("Git commit", details.get("GitCommit", "")),
                ("Built", _built(details.get("BuildTime", ""))),
                ("OS/Arch", f"{details.get('Os', '')}/{details.get('Arch', '')}"),
                ("Experimental", str(details.get("Experimental", False)).lower()),
            ]
        else:
            facts += [(name, details[name]) for name in sorted(details)]
        lines += [f"  {title + ':':<18}{value}" for title, value in facts]
    return "\n".join(lines) + "\n"


def _built(text: str) -> str:
    import time

    from sampan.cli.human import epoch

    try:
        return time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(epoch(text)))
    except (ValueError, IndexError):
        return text


COMMAND = Command(
    "version",
    "[OPTIONS]",
    "Show the Sampan version information",
    (Flag("format", "string", "Output: 'json' or a Go template", "f"),),
    run,
    most=0,
)
