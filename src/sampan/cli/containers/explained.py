"""`run --explain`: the steps of a start, as the engine tells them in a header of its answer."""

from __future__ import annotations

from sampan.cli.app import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = "sampan-explanation"


def tell(headers: Mapping[str, str], created_s: float, started_s: float) -> None:
    """Print the steps to standard error.

    Args:
        headers: of the answer to `start`.
        created_s, started_s: how long the client waited for the answers to `create` and to `start`.
    """
    from sampan.cli.jsontext import parse

    text = headers.get(HEADER, "")
    if not text:
        warn("--explain: this daemon does not tell the steps of a start")
        return
    steps = [(name, detail, at_us, took_us) for name, detail, at_us, took_us in parse(text)]
    width = max(len(name) for name, *_ in steps)
    lines = ["    at ms  took ms"]
    lines.append(f"           {created_s * 1e3:7.2f}  container created (as this client saw it)")
    for name, detail, at_us, took_us in steps:
        lines.append(f"  {at_us / 1e3:7.2f}  {took_us / 1e3:7.2f}  {name:<{width}}  {detail}".rstrip())
    lines.append(f"           {started_s * 1e3:7.2f}  all of the start (as this client saw it)")
    warn("\n".join(lines))
