"""Packets of the protocol: a JSON object in one SOCK_SEQPACKET message, descriptors beside it (unix(7))."""

from __future__ import annotations

import array
import base64
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from sampan.runtime.protocol import Attachment, ExecRequest, ExitRecord, LaunchRequest, LogPlace, LogSpec

PACKET_LIMIT = 1 << 20
_FDS_LIMIT = 32
# As numbers: arithmetic with the module's enumerations costs more than the call.
_NO_SIGNAL, _CLOSED_AT_EXEC = int(socket.MSG_NOSIGNAL), int(socket.MSG_CMSG_CLOEXEC)
_CUT_SHORT = int(socket.MSG_CTRUNC) | int(socket.MSG_TRUNC)
_ANCILLARY = socket.CMSG_SPACE(_FDS_LIMIT * 4)


class CutShort(OSError):
    """A packet or its descriptors did not fit: this process has no more of them, for one."""


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends whose buffers hold a packet of `PACKET_LIMIT` bytes."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        widen(end)
    return ends


def widen(end: socket.socket) -> None:
    """Let one packet be as large as `PACKET_LIMIT`, as far as the system permits."""
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PACKET_LIMIT)


def send(end: socket.socket, message: dict[str, Any], fds: Sequence[int] = (), flags: int = 0) -> None:
    """Send one packet; the descriptors stay open here.

    Raises:
        OSError: the peer is gone, or (with MSG_DONTWAIT) does not read.
    """
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    end.sendmsg([json.dumps(message).encode()], ancillary, int(flags) | _NO_SIGNAL)


def receive(end: socket.socket, flags: int = 0) -> tuple[dict[str, Any] | None, list[int]]:
    """Receive one packet and the descriptors with it; None when the peer has closed.

    Raises:
        CutShort: this packet is lost.
        OSError: as recvmsg(2).
    """
    data, ancillary, status, _ = end.recvmsg(PACKET_LIMIT, _ANCILLARY, int(flags) | _CLOSED_AT_EXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if status & _CUT_SHORT:
        for fd in fds:
            os.close(fd)
        raise CutShort("a packet was cut short")
    if not data:
        return None, list(fds)
    return json.loads(data), list(fds)


def encode_attachment(attachment: Attachment) -> dict[str, Any]:
    """An `Attachment` as JSON."""
    return {
        "streams": [attachment.stdin, attachment.stdout, attachment.stderr],
        "framed": attachment.framed,
        "detach_keys": base64.b64encode(attachment.detach_keys).decode(),
        "prefix": base64.b64encode(attachment.prefix).decode(),
    }


def decode_attachment(value: dict[str, Any]) -> Attachment:
    """An `Attachment` from JSON."""
    return Attachment(
        stdin=value["streams"][0],
        stdout=value["streams"][1],
        stderr=value["streams"][2],
        framed=value["framed"],
        detach_keys=base64.b64decode(value["detach_keys"]),
        prefix=base64.b64decode(value["prefix"]),
    )


def encode_place(place: LogPlace | None) -> list[Any] | None:
    """A `LogPlace` as JSON."""
    return None if place is None else [place.inode, base64.b64encode(place.head).decode(), place.offset]


def decode_place(value: list[Any] | None) -> LogPlace | None:
    """A `LogPlace` from JSON."""
    return None if value is None else LogPlace(value[0], base64.b64decode(value[1]), value[2])


def encode_request(request: LaunchRequest) -> dict[str, Any]:
    """A `LaunchRequest` as JSON."""
    log = request.log
    return {
        "id": request.id,
        "bundle": request.bundle,
        "rundir": request.rundir,
        "open_stdin": request.open_stdin,
        "stdin_once": request.stdin_once,
        "log": None
        if log is None
        else [
            *(log.path, log.max_size_bytes, log.max_files, log.compress, log.attrs, log.format),
            log.buffer_bytes,
        ],
        "attachments": [encode_attachment(attachment) for attachment in request.attachments],
        "terminal_size": request.terminal_size,
        "runtime": request.runtime,
    }


def decode_request(value: dict[str, Any]) -> LaunchRequest:
    """A `LaunchRequest` from JSON."""
    fields = {**value, "terminal_size": _decode_size(value)}
    fields["attachments"] = tuple(decode_attachment(entry) for entry in value["attachments"])
    fields["log"] = None if value["log"] is None else LogSpec(*value["log"])
    fields["runtime"] = tuple(value["runtime"])
    return LaunchRequest(**fields)


def encode_exec(request: ExecRequest) -> dict[str, Any]:
    """An `ExecRequest` as JSON."""
    return {
        "id": request.id,
        "rundir": request.rundir,
        "open_stdin": request.open_stdin,
        "terminal": request.terminal,
        "terminal_size": request.terminal_size,
        "timeout_s": request.timeout_s,
        "reaped": request.reaped,
        "ends_all": request.ends_all,
    }


def decode_exec(value: dict[str, Any]) -> ExecRequest:
    """An `ExecRequest` from JSON."""
    return ExecRequest(**{**value, "terminal_size": _decode_size(value)})


def _decode_size(value: dict[str, Any]) -> tuple[int, int] | None:
    size = value["terminal_size"]
    return None if size is None else (size[0], size[1])


def encode_exit(record: ExitRecord) -> dict[str, Any]:
    """An `ExitRecord` as JSON."""
    return {
        "exit_code": record.exit_code,
        "finished_at_ns": record.finished_at_ns,
        "oom_killed": record.oom_killed,
        "error": record.error,
    }


def decode_exit(value: dict[str, Any]) -> ExitRecord:
    """An `ExitRecord` from JSON."""
    return ExitRecord(
        value["exit_code"], value["finished_at_ns"], value.get("oom_killed", False), value.get("error", "")
    )
