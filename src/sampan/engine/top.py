"""`docker top`: the processes of a container, as ps(1) on the host shows them.

The columns of `ps -ef`, the default, are read from /proc (proc_pid_stat(5)), without ps and its walk over
every process of the machine. For other options the host's ps runs, with `-q` where they allow it.
The reapers of execs are left out: besides the container's first process they are its monitor's only children
(`runtime.exec_start`), which none of the container's own can become.
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import time

from sampan.engine.core import Core, Live, in_thread
from sampan.engine.errors import NotRunning
from sampan.engine.options import OWN_RUNTIME
from sampan.errors import Conflict, InvalidParameter, SampanError
from sampan.linux.cgroups import Manager
from sampan.linux.process import parent

DEFAULT = "-ef"
_TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
_HERTZ = os.sysconf("SC_CLK_TCK")
_RENAMED_PID = re.compile(r"\s+([^\s]*)=\s*(PID[^\s]*)")  # a column that only calls itself PID
_PS_TIMEOUT_S = 30
Table = tuple[list[str], list[list[str]]]


async def top(core: Core, live: Live, ps_args: str = "") -> Table:
    """Titles and one row for each process.

    Args:
        ps_args: options for ps, separated by blanks; empty for `-ef`.

    Raises:
        Conflict: the container does not run.
        InvalidParameter: the options rename a column to PID.
        SampanError: ps refuses them, or shows no PID.
    """
    ps_args = ps_args or DEFAULT
    renamed = _RENAMED_PID.search(ps_args)
    if renamed is not None:
        raise InvalidParameter(f'specifying "{renamed[1]}={renamed[2]}" is not allowed')
    if live.container.state.status == "restarting":
        raise Conflict(f"Container {live.id} is restarting, wait until the container is running")
    if not live.container.state.running:
        raise NotRunning(live.id)
    manager = core.cgroup(live.container)
    own = live.process if live.container.host_config.runtime == OWN_RUNTIME else None
    monitor, first = (own.monitor_pid, live.container.state.pid) if own is not None else (0, 0)
    table = await in_thread(lambda: _table(manager, ps_args, monitor, first))
    core.publish(live, "top")
    return table


def _table(manager: Manager, ps_args: str, monitor: int, first: int) -> Table:
    pids = sorted(manager.pids())
    reapers = [str(pid) for pid in pids if monitor and pid != first and parent(pid) == monitor]
    pids = [pid for pid in pids if str(pid) not in reapers]
    if ps_args == DEFAULT:
        rows = [row for pid in pids if (row := _row(pid)) is not None]
        for row in rows:
            if row[2] in reapers:
                row[2] = str(monitor)  # as if the reaper were not there
        return list(_TITLES), rows
    return parse(_ps(ps_args, pids), pids)


# --- the host's ps ---


def _ps(ps_args: str, pids: list[int]) -> str:
    words = ps_args.split(" ")
    chosen = "-q" + ",".join(str(pid) for pid in pids)
    done = _run(["ps", *words, chosen])
    if done.returncode:
        done = _run(["ps", *words])  # some options and -q exclude each other
    if done.returncode:
        reason = done.stderr.partition("\n")[0]
        raise SampanError(f"ps: {reason or f'exit status {done.returncode}'}")
    return done.stdout


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PS_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise SampanError('ps: exec: "ps": executable file not found in $PATH') from None
    except subprocess.TimeoutExpired:
        raise SampanError(f"ps does not end within {_PS_TIMEOUT_S} seconds") from None


def parse(output: str, pids: list[int]) -> Table:
    """The rows of a table by ps that belong to these processes.

    Raises:
        SampanError: there is no column PID, or something else than numbers in it.
    """
    lines = output.split("\n")
    titles = lines[0].split()
    if "PID" not in titles:
        raise SampanError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    wanted, rows, shown = set(pids), [], False
    for line in lines[1:]:
        words = line.split()
        if len(words) <= column:
            continue
        pid = words[column]
        if pid != "-":  # a thread's line, below its process's
            try:
                shown = int(pid) in wanted
            except ValueError:
                raise SampanError(f"Unexpected pid '{pid}' in ps output") from None
        if shown:
            last = len(titles) - 1
            rows.append([*words[:last], " ".join(words[last:])])
    return titles, rows


# --- /proc ---


def _row(pid: int) -> list[str] | None:
    """A process in the columns of `ps -ef`; None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            head, _, rest = file.read().rpartition(")")
        with open(f"/proc/{pid}/cmdline", "rb") as raw:
            command = raw.read()
        uid = os.stat(f"/proc/{pid}").st_uid
        with open("/proc/uptime", encoding="ascii") as file:
            uptime_s = float(file.read().split()[0])
    except (FileNotFoundError, ProcessLookupError):
        return None
    name = head.partition("(")[2]
    fields = rest.split()  # from the third of proc_pid_stat(5) on
    used_s = (int(fields[11]) + int(fields[12])) / _HERTZ
    age_s = max(uptime_s - int(fields[19]) / _HERTZ, 0.0)
    words = command.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return [
        _user(uid),
        str(pid),
        fields[1],
        str(min(int(used_s * 100 / age_s), 99) if age_s >= 1 else 0),
        _start(time.time() - age_s),
        _terminal(int(fields[4])),
        _clock(int(used_s)),
        " ".join(words.split()) if words.strip() else f"[{name}]",
    ]


def _user(uid: int) -> str:
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
    return name if len(name) <= 8 else f"{name[:7]}+"


def _start(at_s: float) -> str:
    """When a process started: a time of today, a day of this year, or a year."""
    then, now = time.localtime(at_s), time.localtime()
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%b%d" if then.tm_year == now.tm_year else "%Y", then)


def _terminal(number: int) -> str:
    """The controlling terminal by its device number (Linux Documentation/admin-guide/devices.txt)."""
    major, minor = os.major(number), os.minor(number)
    if 136 <= major <= 143:
        return f"pts/{minor + (major - 136) * 256}"
    if major == 4:
        return f"tty{minor}" if minor < 64 else f"ttyS{minor - 64}"
    return "?"


def _clock(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    text = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text
