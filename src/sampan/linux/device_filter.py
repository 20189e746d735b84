"""Device access in cgroup v2: an eBPF program made from rules, attached to the cgroup (bpf(2)).

The kernel runs the program on each open and mknod of a device and refuses when it returns 0
(Linux include/uapi/linux/bpf.h, `BPF_PROG_TYPE_CGROUP_DEVICE`, `struct bpf_cgroup_dev_ctx`).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from sampan.linux import syscalls
from sampan.linux.device_rules import DeviceRule, with_defaults

_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_BPF_PROG_LOAD = 5
_BPF_PROG_ATTACH = 8
_BPF_PROG_DETACH = 9
_BPF_PROG_GET_FD_BY_ID = 13
_BPF_PROG_QUERY = 16
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6
_F_ALLOW_MULTI = 2

# struct bpf_cgroup_dev_ctx: u32 access_type (access << 16 | kind), u32 major, u32 minor
_ACCESS = {"m": 1, "r": 2, "w": 4}
_KIND = {"b": 1, "c": 2}

_LDX_W = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOV_REG = 0xBF
_MOV_IMM = 0xB7
_AND32_IMM = 0x54
_RSH32_IMM = 0x74
_JEQ_IMM = 0x15
_JNE_IMM = 0x55
_EXIT = 0x95
# The registers: 0 the verdict, 1 the context, 2 the kind, 3 the access still to be judged, 4 major, 5 minor,
# 6 scratch.


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", code, src << 4 | dst, offset, immediate)


def _verdict(allow: bool) -> list[bytes]:
    return [_instruction(_MOV_IMM, 0, immediate=int(allow)), _instruction(_EXIT)]


def compile_rules(rules: Iterable[DeviceRule]) -> bytes:
    """The program: for each letter of the access the last rule that names it decides; else it is refused."""
    program = [
        _instruction(_LDX_W, 2, 1, 0),
        _instruction(_MOV_REG, 3, 2),
        _instruction(_AND32_IMM, 2, immediate=0xFFFF),
        _instruction(_RSH32_IMM, 3, immediate=16),
        _instruction(_LDX_W, 4, 1, 4),
        _instruction(_LDX_W, 5, 1, 8),
    ]
    for rule in reversed(list(rules)):
        if rule.kind == "a":
            return b"".join(program + _verdict(rule.allow))
        bits = sum(_ACCESS[letter] for letter in set(rule.access))
        if rule.allow:
            judge = [
                _instruction(_AND32_IMM, 3, immediate=7 & ~bits),
                _instruction(_JNE_IMM, 3, offset=2, immediate=0),
            ]
        else:
            judge = [
                _instruction(_MOV_REG, 6, 3),
                _instruction(_AND32_IMM, 6, immediate=bits),
                _instruction(_JEQ_IMM, 6, offset=2, immediate=0),
            ]
        body = judge + _verdict(rule.allow)
        tests = [(2, _KIND[rule.kind]), (4, rule.major), (5, rule.minor)]
        wanted = [(register, value) for register, value in tests if value is not None]
        for index, (register, value) in enumerate(wanted):
            beyond = len(wanted) - index - 1 + len(body)
            program.append(_instruction(_JNE_IMM, register, offset=beyond, immediate=value))
        program += body
    return b"".join(program + _verdict(False))


class _LoadAttr(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    )


class _AttachAttr(ctypes.Structure):
    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
    )


class _QueryAttr(ctypes.Structure):
    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64),
        ("prog_cnt", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


class _IdAttr(ctypes.Structure):
    _fields_ = (("id", ctypes.c_uint32), ("next_id", ctypes.c_uint32), ("open_flags", ctypes.c_uint32))


def _bpf(command: int, attr: ctypes.Structure) -> int:
    number = _SYS_BPF[os.uname().machine]
    return syscalls.syscall("bpf", number, command, ctypes.byref(attr), ctypes.sizeof(attr))


def load(program: bytes) -> int:
    """Load a program into the kernel; returns its descriptor.

    Raises:
        OSError: EPERM without CAP_BPF and CAP_NET_ADMIN (or CAP_SYS_ADMIN), EINVAL for a kernel without it.
    """
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache")
    attr = _LoadAttr(
        prog_type=_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt=len(program) // 8,
        insns=ctypes.addressof(code),
        license=ctypes.addressof(licence),
    )
    return _bpf(_BPF_PROG_LOAD, attr)


def attached(cgroup_fd: int) -> list[int]:
    """Descriptors of the device programs attached to this very cgroup; the caller closes them."""
    ids = (ctypes.c_uint32 * 64)()
    query = _QueryAttr(
        target_fd=cgroup_fd, attach_type=_CGROUP_DEVICE, prog_ids=ctypes.addressof(ids), prog_cnt=len(ids)
    )
    _bpf(_BPF_PROG_QUERY, query)
    found = []
    for program_id in ids[: query.prog_cnt]:
        try:
            found.append(_bpf(_BPF_PROG_GET_FD_BY_ID, _IdAttr(id=program_id)))
        except FileNotFoundError:
            pass  # detached by somebody else meanwhile
    return found


def attach(cgroup_fd: int, rules: Iterable[Mapping[str, Any]]) -> None:
    """Put OCI device rules in force on a cgroup, in place of those that were.

    The new program is attached before the old ones go, so that no moment is without one.

    Args:
        cgroup_fd: descriptor of the cgroup's directory, opened for reading.
        rules: OCI `linux.resources.devices`; the default devices are added to them.

    Raises:
        OSError: as bpf(2).
        ValueError: a rule that means nothing.
    """
    program = load(compile_rules(with_defaults(rules)))
    old: list[int] = []
    try:
        old = attached(cgroup_fd)
        _bpf(_BPF_PROG_ATTACH, _AttachAttr(cgroup_fd, program, _CGROUP_DEVICE, _F_ALLOW_MULTI))
        for earlier in old:
            try:
                _bpf(_BPF_PROG_DETACH, _AttachAttr(cgroup_fd, earlier, _CGROUP_DEVICE, 0))
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
    finally:
        for fd in (program, *old):
            os.close(fd)
