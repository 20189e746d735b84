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


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Show both versions; the client's also when no daemon answers."""
    server, failure = None, None
    try:
        server = app.client.call("GET", "/version")
    except CommandError as error:
        failure = error
    spoken = app.client.version if server else NEWEST
    client = {
        "Platform": {"Name": ""},
        "Version": __version__,
        "ApiVersion": spoken,
        "DefaultAPIVersion": NEWEST,
        "PythonVersion": sys.version.split()[0],
        "Os": "linux",
        "Arch": _MACHINES.get(os.uname().machine, os.uname().machine),
        "Context": chosen_context(app.options, app.config),
    }
    form = values.text("format")
    if form:
        from sampan.cli.template import object_template

        object_template(form, {"Client": client, "Server": server})
    else:
        out(_client_text(client) + (_server_text(server) if server else ""))
    if failure is not None:
        raise failure
    return 0


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
        lines.append(f"  {'Version:':<17}{component.get('Version', '')}")
        if "ApiVersion" in details:
            api = f"{details['ApiVersion']} (minimum version {details.get('MinAPIVersion', '')})"
            lines.append(f"  {'API version:':<17}{api}")
            for name, title in (("GoVersion", "Go version:"), ("PythonVersion", "Python version:")):
                if details.get(name):
                    lines.append(f"  {title:<17}{details[name]}")
            for name, title in (("GitCommit", "Git commit:"), ("BuildTime", "Built:")):
                if details.get(name):
                    value = _built(details[name]) if name == "BuildTime" else details[name]
                    lines.append(f"  {title:<17}{value}")
            lines.append(f"  {'OS/Arch:':<17}{details.get('Os', '')}/{details.get('Arch', '')}")
            lines.append(f"  {'Experimental:':<17}{str(details.get('Experimental', False)).lower()}")
        else:
            for name in sorted(details):
                lines.append(f"  {name + ':':<17}{details[name]}")
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
