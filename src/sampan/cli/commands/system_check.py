"""`sampan system check`: is what the engine keeps on disk whole, and what can be done when it is not."""

from __future__ import annotations

from sampan.cli.app import line
from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Tell each thing that is wrong in a line; 0 when nothing is, or everything was set right."""
    query = {"repair": values.on("repair")}
    findings: list[dict[str, Any]] = []
    end: dict[str, Any] = {}
    for message in app.client.request("POST", "/sampan/check", query, b"").values():
        if "errorDetail" in message:
            raise CommandError(message["errorDetail"]["message"])
        if "Checked" in message:
            end = message
            continue
        findings.append(message)
        if not values.on("json"):
            line(_sentence(message))
    if not end:
        raise CommandError("the daemon ended before the check was done")
    if values.on("json"):
        from sampan.cli.jsontext import pretty

        line(pretty({**end, "Findings": findings}))
    else:
        line(_summary(end))
    return 1 if end["Left"] else 0


def _sentence(finding: dict[str, Any]) -> str:
    text = f"{finding['Kind']} {finding['Subject']}: {finding['Problem']}"
    return f"{text}: {finding['Action']}" if finding["Action"] else text


def _summary(end: dict[str, Any]) -> str:
    counted = ", ".join(
        f"{number} {kind.lower() if number != 1 else kind.lower().removesuffix('s')}"
        for kind, number in end["Checked"].items()
    )
    if not end["Found"]:
        return f"Checked {counted}: nothing is wrong"
    repaired = end["Found"] - end["Left"]
    return f"Checked {counted}: {end['Found']} found, {repaired} set right, {end['Left']} left"


COMMAND = Command(
    "system check",
    "[OPTIONS]",
    "Look for damage in the data root",
    (
        Flag("json", "bool", "Show the findings as JSON"),
        Flag("repair", "bool", "Set right what can be; what is in use is left alone"),
    ),
    run,
    most=0,
    details=(
        "Hashes every blob and holds images, layers and containers against each other and the disk.\n"
        "Exits with 0 when nothing is wrong or everything was set right, else with 1."
    ),
)
