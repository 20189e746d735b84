"""`sampan network policy`: where containers may connect to, shown and changed, and what was refused."""

from __future__ import annotations

import json
import sys

from sampan.cli.app import line, out
from sampan.cli.client import escape
from sampan.cli.failures import ApiError, CommandError
from sampan.cli.flags import Command, Flag
from sampan.cli.human import epoch, local_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values

_DETAILS = """\
NAME is a container's or a network's; where both have it, the container is meant, or with --network the
network.

POLICY is `deny`, or `allow:` and, with commas between them, names (pypi.org), everything below a name
(*.debian.org), IPv4 addresses and networks (10.0.0.0/8), each with :PORT if wanted; or `none`."""
_NETWORK = Flag("network", "bool", "NAME is a network's")


def _target(app: App, values: Values, name: str) -> tuple[str, Any]:
    """The path of a container's or network's policy, and the policy."""
    kinds = ("networks",) if values.on("network") else ("containers", "networks")
    for kind in kinds:
        path = f"/{kind}/{escape(name)}/egress"
        try:
            return path, app.client.call("GET", path)
        except ApiError as error:
            if error.status != 404:
                raise
    raise CommandError(f"no such {'network' if values.on('network') else 'container or network'}: {name}")


def _set(app: App, values: Values, arguments: list[str]) -> int:
    name, policy = arguments
    path, _ = _target(app, values, name)
    app.client.request("PUT", path, None, {"Policy": policy}).read()
    return 0


def _show(app: App, values: Values, arguments: list[str]) -> int:
    _, found = _target(app, values, arguments[0])
    if values.text("format") == "json":
        line(json.dumps(found))
        return 0
    line(found["Policy"])
    for network, applied in found.get("Networks", {}).items():
        if not applied["Own"]:
            line(f"in {network}: {applied['Policy']}")
    for one in found.get("Open", ()):
        where = _where(one)
        until = local_time(epoch(one["Until"]))[:19]
        line(f"open until {until}: {where} ({', '.join(one['Names']) or 'a name'})")
    return 0


def _log(app: App, values: Values, arguments: list[str]) -> int:
    path, _ = _target(app, values, arguments[0])
    query = {"follow": "1" if values.on("follow") else None}
    as_json = values.text("format") == "json"
    for one in app.client.request("GET", f"{path}/log", query).values():
        out((json.dumps(one) if as_json else text(one)) + "\n")
        sys.stdout.flush()
    return 0


def text(one: dict[str, Any]) -> str:
    """One refusal in a line: when, who, what."""
    if one["Kind"] == "name":
        what = f"name {one['Name']}"
    elif one["Kind"] == "answer":
        what = f"name {one['Name']} at {one['Address']}"
    else:
        what = f"{one['Protocol']} {_where(one)}{' (' + one['Name'] + ')' if one['Name'] else ''}"
    return f"{one['Time']} {one['Container'] or one['ContainerID'][:12]} refused {what}"


def _where(one: dict[str, Any]) -> str:
    ports = [str(port) for port in dict.fromkeys((one["Port"], one.get("LastPort", one["Port"]))) if port]
    return ":".join([one["Address"], "-".join(ports)] if ports else [one["Address"]])


_FORMAT = Flag("format", "string", "Output: 'json'")

COMMANDS = {
    "log": Command(
        "network policy log",
        "[OPTIONS] NAME",
        "Show what was refused to a container, or to those in a network",
        (Flag("follow", "bool", "Go on with what comes", "f"), _FORMAT, _NETWORK),
        _log,
        least=1,
        most=1,
    ),
    "set": Command(
        "network policy set",
        "[OPTIONS] NAME POLICY",
        "Change where a container, or those in a network, may connect to",
        (_NETWORK,),
        _set,
        least=2,
        most=2,
        details=_DETAILS,
    ),
    "show": Command(
        "network policy show",
        "[OPTIONS] NAME",
        "Show where a container, or those in a network, may connect to",
        (_FORMAT, _NETWORK),
        _show,
        least=1,
        most=1,
    ),
}
