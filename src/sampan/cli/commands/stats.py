"""`sampan stats`: what containers use, once or as a table that is drawn anew twice a second."""

from __future__ import annotations

import sys
import threading
import time

from sampan.cli.app import out
from sampan.cli.client import Client, escape
from sampan.cli.failures import CommandError, ConnectionFailed
from sampan.cli.flags import Command, Flag
from sampan.cli.human import binary_size, short_id, size
from sampan.cli.listing import Field, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from sampan.cli.app import App
    from sampan.cli.flags import Values
    from sampan.cli.hosts import Host

_COLUMNS = ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs")
_GRAPHS = ("ID", "Name", "CPUPerc", "CPUGraph", "MemUsage", "MemPerc", "MemGraph", "NetIO", "BlockIO", "PIDs")
_GRAPH_S = 20  # one figure a second
_REDRAWN_S = 0.5
_AT_ONCE = 64  # connections that ask for single figures


class Entry:
    """One row: the container as it was named, and its last figures."""

    def __init__(self, container: str) -> None:
        self.container = container
        self.frame: dict[str, Any] | None = None
        self.error: CommandError | None = None
        self.first = threading.Event()  # there is a frame, or there will be none
        self.cpu: list[float] = []  # percentages of the last seconds
        self.memory: list[float] = []

    def take(self, frame: dict[str, Any]) -> None:
        """Have a new frame, and remember what graphs show of it."""
        self.frame = frame
        self.cpu = [*self.cpu, cpu_percent(frame)][-_GRAPH_S:]
        self.memory = [*self.memory, memory_percent(frame)][-_GRAPH_S:]
        self.first.set()


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Show the containers that were named, or all that run."""
    everything = values.on("all")
    streaming = not values.on("no-stream")
    form = values.text("format") or str(app.config.get("statsFormat") or "")
    graphs = bool(values.on("graph"))
    if graphs and (not streaming or values.given("format")):
        raise CommandError("--graph shows what changes, in a table of its own: no --no-stream, no --format")
    shown = fields(not values.on("no-trunc"))
    columns: Sequence[str] = _COLUMNS
    if graphs:
        from sampan.cli.graphs import graph

        shown["CPUGraph"] = Field("CPU", lambda entry: graph(entry.cpu, _GRAPH_S))
        shown["MemGraph"] = Field("MEM", lambda entry: graph(entry.memory, _GRAPH_S, 100.0))
        columns, form = _GRAPHS, ""
    rows: dict[str, Entry] = {}
    host = app.client.host
    lost: list[CommandError] = []
    if not arguments:
        if streaming:
            watched = Client(host).request("GET", "/events", {"filters": {"type": {"container": True}}})
            threading.Thread(target=_watch, args=(host, watched, rows, everything, lost), daemon=True).start()
        listed = Client(host).call("GET", "/containers/json", {"all": everything})
        names = [one["Id"][:12] for one in listed]
    else:
        names = list(dict.fromkeys(arguments))
    fresh = [rows.setdefault(name, Entry(name)) for name in names]
    if streaming:
        for entry in fresh:
            _follow(host, entry)
        for entry in fresh:
            entry.first.wait()
    else:
        _ask(host, fresh)
    errors = [entry.error for entry in fresh if entry.error is not None]
    if arguments and errors:
        raise CommandError("\n".join(error.message for error in errors))
    while True:
        if streaming:
            out("\033[H")
        _draw(list(rows.values()), shown, columns, form, streaming)
        if not streaming:
            return 0
        if lost:
            if isinstance(lost[0], ConnectionFailed) or lost[0].message == "unexpected EOF":
                return 0  # the daemon has ended
            raise lost[0]
        if arguments and all(entry.error is not None for entry in rows.values()):
            return 0
        time.sleep(_REDRAWN_S)


def _draw(
    entries: list[Entry], shown: dict[str, Field], columns: Sequence[str], form: str, streaming: bool
) -> None:
    if not streaming:
        show(entries, shown, columns, form, "", "*container.statsContext")
        return
    import io

    screen, sys.stdout = sys.stdout, io.StringIO()
    try:
        show(entries, shown, columns, form, "", "*container.statsContext")
        text = sys.stdout.getvalue()
    finally:
        sys.stdout = screen
    for line in text.split("\n"):
        out(f"{line} \033[K\n")  # what a longer line left is wiped out
    out("\033[J")
    sys.stdout.flush()


# --- asking ---


def _ask(host: Host, entries: list[Entry]) -> None:
    """One figure for each, many at a time: the daemon takes a moment between its two samples."""
    waiting = list(reversed(entries))

    def work() -> None:
        client = Client(host)
        while True:
            try:
                entry = waiting.pop()
            except IndexError:
                return
            try:
                entry.frame = client.call(
                    "GET", f"/containers/{escape(entry.container)}/stats", {"stream": "0"}
                )
            except CommandError as error:
                entry.error = error

    threads = [threading.Thread(target=work) for _ in range(min(len(entries), _AT_ONCE))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _follow(host: Host, entry: Entry) -> None:
    def work() -> None:
        try:
            response = Client(host).request(
                "GET", f"/containers/{escape(entry.container)}/stats", {"stream": "1"}
            )
            for frame in response.values():
                entry.take(frame)
            entry.error = CommandError("the container is gone")
        except (CommandError, OSError) as error:
            entry.error = error if isinstance(error, CommandError) else CommandError(str(error))
        entry.first.set()

    threading.Thread(target=work, daemon=True).start()


def _watch(host: Host, response: Any, rows: dict[str, Entry], everything: bool, lost: list[Any]) -> None:
    """Let rows come and go with the containers."""
    try:
        for event in response.values():
            key = ((event.get("Actor") or {}).get("ID") or "")[:12]
            action = event.get("Action")
            if action == "start" or (action == "create" and everything):
                if key not in rows:
                    rows[key] = entry = Entry(key)
                    _follow(host, entry)
            elif action == "destroy" or (action == "die" and not everything):
                rows.pop(key, None)
        lost.append(CommandError("unexpected EOF"))
    except CommandError as error:
        lost.append(error)
    except OSError as error:
        lost.append(CommandError(str(error)))


# --- figures ---


def fields(short: bool) -> dict[str, Field]:
    """What a template may ask of a row."""

    def figure(missing: str, text: Any) -> Any:
        return lambda entry: missing if _unknown(entry) else text(entry.frame)

    def identity(entry: Entry) -> str:
        known = (entry.frame or {}).get("id", "") if not _unknown(entry) else ""
        return (short_id(known) if short else known) or "--"

    return {
        "BlockIO": Field("BLOCK I/O", figure("-- / --", block_io)),
        "CPUPerc": Field("CPU %", figure("--", lambda frame: f"{cpu_percent(frame):.2f}%")),
        "Container": Field("CONTAINER", lambda entry: entry.container),
        "ID": Field("CONTAINER ID", identity),
        "MemPerc": Field("MEM %", figure("--", lambda frame: f"{memory_percent(frame):.2f}%")),
        "MemUsage": Field("MEM USAGE / LIMIT", figure("-- / --", _memory)),
        "Name": Field("NAME", figure("--", lambda frame: frame.get("name", "").removeprefix("/") or "--")),
        "NetIO": Field("NET I/O", figure("-- / --", _network)),
        "PIDs": Field(
            "PIDS", figure("--", lambda frame: str((frame.get("pids_stats") or {}).get("current", 0)))
        ),
    }


def _unknown(entry: Entry) -> bool:
    return entry.frame is None or entry.error is not None


def cpu_percent(frame: dict[str, Any]) -> float:
    """The share of one processor, 100 for one that was busy all the time between the two samples."""
    now, before = frame.get("cpu_stats") or {}, frame.get("precpu_stats") or {}
    used = _total(now) - _total(before)
    machine = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    count = now.get("online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or ())
    return used / machine * count * 100.0 if used > 0 and machine > 0 else 0.0


def _total(cpu: dict[str, Any]) -> int:
    return int((cpu.get("cpu_usage") or {}).get("total_usage", 0))


def used_memory(frame: dict[str, Any]) -> int:
    """Bytes in use, without the cache that the kernel would give up first."""
    memory = frame.get("memory_stats") or {}
    usage, rows = int(memory.get("usage", 0)), memory.get("stats") or {}
    for name in ("total_inactive_file", "inactive_file"):  # of cgroup v1, of v2
        if name in rows:
            return usage - rows[name] if rows[name] < usage else usage
    return usage


def memory_percent(frame: dict[str, Any]) -> float:
    """Memory in use as a share of its limit."""
    limit = (frame.get("memory_stats") or {}).get("limit", 0)
    return used_memory(frame) / limit * 100.0 if limit else 0.0


def _memory(frame: dict[str, Any]) -> str:
    limit = (frame.get("memory_stats") or {}).get("limit", 0)
    return f"{binary_size(used_memory(frame))} / {binary_size(limit)}"


def _network(frame: dict[str, Any]) -> str:
    counters = (frame.get("networks") or {}).values()
    received, sent = (sum(one.get(name, 0) for one in counters) for name in ("rx_bytes", "tx_bytes"))
    return f"{size(received)} / {size(sent)}"


def block_io(frame: dict[str, Any]) -> str:
    """Bytes read from and written to block devices."""
    entries = (frame.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    read, written = (
        sum(one.get("value", 0) for one in entries if one.get("op", "")[:1].lower() == letter)
        for letter in "rw"
    )
    return f"{size(read)} / {size(written)}"


COMMAND = Command(
    "stats",
    "[OPTIONS] [CONTAINER...]",
    "Display a live stream of container(s) resource usage statistics",
    (
        Flag("all", "bool", "Show all containers, not only those that run", "a"),
        Flag("format", "string", "Output: 'table', 'table TEMPLATE', 'json' or a Go template"),
        Flag("graph", "bool", "Show graphs of the last 20 seconds"),
        Flag("no-stream", "bool", "Show one figure for each and end"),
        Flag("no-trunc", "bool", "Show ids in full"),
    ),
    run,
    aliases=("container stats", "stats"),
)
