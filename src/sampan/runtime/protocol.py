"""What daemon, launcher and monitors say to each other: one JSON object a packet, descriptors beside it.

The sockets are `SOCK_SEQPACKET`, so a packet is a message; descriptors ride along with SCM_RIGHTS (unix(7)).
Stdlib only and light: the launcher imports it.
"""

from __future__ import annotations

from dataclasses import field

from sampan.dataclasses import dataclass

# The descriptors of a reaper: where it tells its command's exit code, and itself, if that is open.
REPORT_FD, PROGRAM_FD = 3, 4


@dataclass(frozen=True, slots=True)
class LogSpec:
    """Where and how the monitor writes a container's output.

    Attributes:
        path: the file; rotated ones get `.1`, `.2`, … behind it.
        max_size_bytes: rotate when the file would grow past this; 0 never.
        max_files: how many files to keep, the current one included.
        attrs: extra attributes to write with each line (json-file's labels and env options).
        format: "json-file" or "local".
        buffer_bytes: how much may wait for the disk before output is dropped; 0: the container waits.
    """

    path: str
    max_size_bytes: int
    max_files: int
    compress: bool = False
    attrs: dict[str, str] = field(default_factory=dict)
    format: str = "json-file"
    buffer_bytes: int = 0


@dataclass(frozen=True, slots=True)
class LogPlace:
    """How far a container's log went once.

    Attributes:
        inode: of the file that was the current one.
        head: the first bytes of that, by which it is known under another name, or compressed.
        offset: how many bytes it had.
    """

    inode: int
    head: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class Attachment:
    """One client's connection to the streams; its descriptor travels beside it.

    Attributes:
        stdin, stdout, stderr: which streams it takes part in.
        framed: put Docker's 8-byte stream header before each piece of output (never with a terminal).
        detach_keys: the bytes that end this attachment and leave the process running; empty for none.
        prefix: bytes of stdin that the client had already sent with its request.
    """

    stdin: bool
    stdout: bool
    stderr: bool
    framed: bool
    detach_keys: bytes = b""
    prefix: bytes = b""


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What the daemon asks of the launcher: run this bundle.

    Attributes:
        id: the container's.
        bundle: the directory that holds its `config.json` (OCI runtime spec, bundle).
        rundir: this run's own directory (it exists and is empty): the monitor puts `monitor.sock`,
            `state.json` and at the end `exit.json` there.
        open_stdin: keep a pipe to stdin open; otherwise stdin is /dev/null. A terminal implies it.
        stdin_once: close stdin when the first attached client with stdin ends its side.
        log: where output goes besides the attached clients; None for nowhere.
        attachments: clients to serve from the first byte on; as many descriptors travel with the request.
        terminal_size: rows and columns of the terminal at the start, when known.
        runtime: the words that start an external OCI runtime to do it with; none for our own.
    """

    id: str
    bundle: str
    rundir: str
    open_stdin: bool = False
    stdin_once: bool = False
    log: LogSpec | None = None
    attachments: tuple[Attachment, ...] = ()
    terminal_size: tuple[int, int] | None = None
    runtime: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """What the daemon asks of a container's monitor: run one more process in it.

    The process is made at once and waits for the daemon's word on the exec's own connection: that `exec.json`
    is written, whose member `process` is an OCI `process` object, and whom to serve from the first byte on;
    or that the exec is not to be.

    Attributes:
        id: the exec's.
        rundir: as in `LaunchRequest`, for the exec; the daemon makes it and puts `exec.json` there.
        open_stdin: as in `LaunchRequest`; stdin closes with the first client's side.
        terminal: whether it has a terminal.
        terminal_size: as in `LaunchRequest`.
        timeout_s: seconds after which it is ended, with all that it started; 0 for never.
        reaped: with an external runtime, run it under a reaper, whose program is the first descriptor with
            the request, so that nothing of it stays behind as a zombie where the container's process 1 reaps
            nobody. It is called as `NAME -k -- COMMAND…`, and tells the exit code on `REPORT_FD`. With our
            own the descriptor is the program of `steps_program`, which always ends as such a reaper.
        ends_all: what its program leaves running is ended, too.
    """

    id: str
    rundir: str
    open_stdin: bool = False
    terminal: bool = False
    terminal_size: tuple[int, int] | None = None
    timeout_s: float = 0
    reaped: bool = False
    ends_all: bool = False


@dataclass(frozen=True, slots=True)
class ExitRecord:
    """How a process ended.

    Attributes:
        exit_code: 0 to 255; 128 + n when signal n ended it.
        finished_at_ns: the wall clock's time, nanoseconds since 1970.
        oom_killed: the kernel's out-of-memory killer ended a process of the container.
        error: set when the end is not the process's own (its monitor died, say).
    """

    exit_code: int
    finished_at_ns: int
    oom_killed: bool = False
    error: str = ""
