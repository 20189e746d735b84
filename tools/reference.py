"""Writes the reference pages that are not about commands: sampand's options, and the events.

Each function returns a page in Markdown, made of the code as it stands: of the daemon's own table of options,
and of the calls that publish events. `tools/site.py` puts them into the site.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "src")]

from messages import dotted, modules, text_of  # noqa: E402  (the paths come first)

from sampan.daemon.options import NOT_OFFERED, PROXIES, TABLE, Option  # noqa: E402


class Stale(Exception):
    """What is told here and what the code does are not the same."""


# --- sampand ---

KINDS = {
    "text": "string", "number": "number", "bool": "true or false", "size": 'size, as 67108864 or "64m"',
    "list": "list of strings", "map": "object of strings", "pools": '[{"base": CIDR, "size": BITS}, …]',
    "runtimes": '{"NAME": {"path": …, "runtimeArgs": […]}}',
}  # fmt: skip
SAMPAND = """\
# sampand and daemon.json

The daemon's options: as flags, and as keys of `/etc/sampan/daemon.json` (`--config-file` names another). An
option that is in both is an error, as with dockerd. *Reload*: SIGHUP takes a new value over from the file.
What they mean in use is told in [The daemon](../daemon.md). Written by `tools/reference.py` from the daemon's
own table.

| flag | key and its value | reload | |
|---|---|---|---|
"""
REFUSED = """
Flags whose keys are lists or objects may be given several times. `--icc` means `--icc=true`.

## Not offered

Flags and keys of dockerd's that are refused by name, as they mean something that Sampan does not do:

"""


def sampand() -> str:
    """Flags and keys of the daemon."""
    rows = []
    for option in TABLE:
        short = f"-{option.short}, " if option.short else ""
        flag = f"{short}--{option.flag} {option.placeholder}".rstrip().replace("|", "\\|")
        reload = "yes" if option.reload else ""
        rows.append(f"| `{flag}` | {_key(option)} | {reload} | {option.help} |\n")
    return f"{SAMPAND}{''.join(rows)}{REFUSED}{', '.join(f'`{name}`' for name in sorted(NOT_OFFERED))}.\n"


def _key(option: Option) -> str:
    if option.key == "-":
        return "none"
    kind = KINDS[option.kind]
    if option.name in PROXIES:
        return f"`proxies`, its member `{option.name}`: {kind}"
    if option.name == "default-ulimits":
        kind = '{"NAME": {"Soft": …, "Hard": …}}'
    return f"`{option.name}`: {kind}"


# --- events ---

EVENTS: dict[str, dict[str, str]] = {
    "container": {
        "archive-path": "files were copied out of it (`cp`)",
        "attach": "a client attached to its streams",
        "commit": "an image was made of it: `imageID`, `imageRef`, `comment`",
        "create": "it was made",
        "destroy": "it was removed",
        "die": "its first process ended: `exitCode`, `execDuration` in seconds",
        "exec_create: …": "a command for it was prepared: `execID`",
        "exec_die": "such a command ended: `execID`, `exitCode`",
        "exec_start: …": "such a command was started: `execID`",
        "export": "its files were exported",
        "extract-to-dir": "files were copied into it (`cp`)",
        "health_status: …": "its health has changed, to healthy or unhealthy",
        "kill": "a signal was sent to it: `signal`, a number",
        "oom": "the kernel killed a process of it for want of memory",
        "pause": "its processes were frozen",
        "prune": "stopped containers were removed: `reclaimed` bytes",
        "rename": "it got another name: `oldName`",
        "restart": "it was restarted by request",
        "start": "it was started",
        "stop": "it ended after a request to stop",
        "top": "somebody listed its processes",
        "unpause": "its processes were thawed",
        "update": "its limits or its restart policy were changed",
    },
    "image": {
        "delete": "it was removed",
        "import": "it was made of an archive of files",
        "load": "it was loaded from an archive of images",
        "prune": "unused images were removed: `reclaimed` bytes",
        "pull": "it was pulled",
        "push": "it was pushed",
        "save": "it was saved to an archive",
        "tag": "it got a name",
        "untag": "it lost a name",
    },
    "network": {
        "connect": "a container joined it: `container`",
        "create": "it was made",
        "destroy": "it was removed",
        "disconnect": "a container left it: `container`",
        "prune": "unused networks were removed",
    },
    "volume": {
        "create": "it was made",
        "destroy": "it was removed",
        "mount": "a container that uses it started: `container`, `destination`, `read/write`, `propagation`",
        "prune": "unused volumes were removed: `reclaimed` bytes",
        "unmount": "a container that uses it ended: `container`",
    },
    "daemon": {"reload": "SIGHUP was taken: the attributes are the options that hold now"},
}


HEAD = """\
# Events

What `sampan events` and `GET /events` tell, in Docker's words. Each has the attributes of its object: its
labels, `name` and `image` of a container, `name` and `type` of a network, `driver` of a volume; and those
that are named here. The last 256 are kept for `--since`. Times never go backwards, unless the clock is set
back. `tools/reference.py` holds this page against the calls in the code.
"""


def published() -> set[tuple[str, str]]:
    """Type and action of each event that the code publishes."""
    calls = ((path, node) for path, nodes in modules() for node in nodes if isinstance(node, ast.Call))
    return {event for path, call in calls if (event := _published(path, call)) is not None}


def _published(path: Path, call: ast.Call) -> tuple[str, str] | None:
    """The event of a call, or None where it is a call of another kind."""
    name = dotted(call.func)
    words = [text for text in map(text_of, call.args) if text is not None]
    if not words:
        return None
    if name.endswith("events.publish") and len(call.args) == 4:
        return (words[0], words[1]) if len(words) > 1 else None
    if name in ("core.publish", "self._core.publish", "engine.publish"):
        return "container", words[-1]
    if name == "networks.tell" or (name == "publish" and path.name == "networks.py"):
        return "network", words[-1]
    if name in ("sources.tell", "tell") and len(call.args) == 3:
        return "volume", words[-1]
    if name in ("self._on_event", "self._notify") and path.parent.name == "images":
        return "image", words[0]
    return None


def events() -> str:
    """The events of `sampan events` and `GET /events`.

    Raises:
        Stale: the code publishes others than are described here.
    """
    known = {(kind, action) for kind, actions in EVENTS.items() for action in actions}
    told = published()
    if known != told:
        raise Stale(f"events: not described {sorted(told - known)}, not published {sorted(known - told)}")
    lines = [HEAD.rstrip()]
    for kind, actions in EVENTS.items():
        lines += ["", f"## {kind}", "", "| action | |", "|---|---|"]
        lines += [f"| `{action}` | {text} |" for action, text in sorted(actions.items())]
    return "\n".join(lines) + "\n"
