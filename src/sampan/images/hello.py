"""The built-in image `hello-world`: one static program, written here instruction by instruction.

An empty store is given this image, so that the first container needs neither a registry nor a compiler. The
program is an ELF executable of a single segment (elf(5)) for x86-64 or AArch64 that writes a text to standard
output and exits; the image is an archive as `docker save` writes it, always the same bytes and so ids.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
import tarfile
from collections.abc import Callable

from sampan.errors import Unsupported

REFERENCE = "hello-world:latest"
CREATED = "2025-01-01T00:00:00Z"

MESSAGE = """
Ahoy! This is a container, and Sampan has just run it for you.

What has happened on the way here:
 1. The client asked the daemon, over its socket, to run the image
    "hello-world".
 2. The daemon found the image in its store. This one is built in, so nothing
    had to be fetched.
 3. It laid an empty, writable directory over the image's read-only one: the
    root file system of this container alone.
 4. It made the container's surroundings: namespaces to live in, a cgroup that
    counts and limits what it uses, and a network interface with an address of
    its own behind a private bridge.
 5. It started this program, /hello, in there as process 1.
 6. What the program writes, these lines, travelled back to the client. When it
    ends, in a moment, all that was made for it while it ran is taken down.

To go on with a real Debian (as root, with the package debootstrap):
    debootstrap --variant=minbase stable /tmp/debian
    tar -C /tmp/debian -c . | sampan import - debian
    sampan run -it debian bash

README.md takes you further, and `sampan help` lists every command.

"""

_BASE = 0x400000
_HEADERS = 64 + 56  # ELF header and one program header; the code follows at once

# Linux's numbers of write and exit_group: its syscall_64.tbl and asm-generic/unistd.h.
_X86_WRITE, _X86_EXIT_GROUP = 1, 231
_ARM_WRITE, _ARM_EXIT_GROUP = 64, 94


def hello_program(machine: str, message: str = MESSAGE) -> bytes:
    """A static Linux executable that writes `message` and exits with 0, or with 1 when it cannot write.

    Args:
        machine: the kernel's name of the architecture, `x86_64` or `aarch64`.
        message: what to print; at most 65,535 bytes in UTF-8.

    Raises:
        Unsupported: for another architecture.
    """
    if machine not in _MACHINES:
        raise Unsupported(f"hello-world is built for x86_64 and aarch64, not for {machine}")
    elf_machine, emit, _ = _MACHINES[machine]
    text = message.encode()
    code = emit(len(text))
    size = _HEADERS + len(code) + len(text)
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bits, little endian, version 1, System V
    header = identity + struct.pack(
        "<HHIQQQIHHHHHH",
        *(2, elf_machine, 1, _BASE + _HEADERS, 64, 0),  # ET_EXEC, machine, version, entry, phoff, shoff
        *(0, 64, 56, 1, 64, 0, 0),  # flags, ehsize, phentsize, phnum, shentsize, shnum, shstrndx
    )
    # PT_LOAD, readable and executable: the whole file at _BASE.
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x10000)
    return header + segment + code + text


def _emit_x86_64(length: int) -> bytes:
    """write(1, text, length) until nothing is left, then exit_group; the text follows the code."""

    def load(register_opcode: int, value: int) -> bytes:
        return struct.pack("<BI", register_opcode, value)  # mov r32, imm32

    edi, eax, edx, syscall = 0xBF, 0xB8, 0xBA, b"\x0f\x05"
    fail_and_leave = load(edi, 1) + load(eax, _X86_EXIT_GROUP) + syscall
    leave_well = b"\x31\xff" + b"\xeb\x05"  # xor edi, edi; jmp past the failure's mov
    advance = b"\x48\x01\xc6" + b"\x48\x29\xc2"  # add rsi, rax; sub rdx, rax
    write = load(edi, 1) + load(eax, _X86_WRITE) + syscall + b"\x48\x85\xc0"  # test rax, rax
    forward = len(advance) + 2 + len(leave_well)
    loop = write + struct.pack("<BB", 0x7E, forward) + advance  # jle to the failure
    loop += struct.pack("<Bb", 0x75, -(len(loop) + 2))  # jnz to the loop's start
    rest = load(edx, length) + loop + leave_well + fail_and_leave
    return b"\x48\x8d\x35" + struct.pack("<i", len(rest)) + rest  # lea rsi, [rip + rest]


def _emit_aarch64(length: int) -> bytes:
    """The same for AArch64 (Arm ARM, chapter C6: A64 base instructions)."""

    def movz(register: int, value: int) -> int:
        return 0xD2800000 | value << 5 | register

    def branch_if(condition: int, instructions: int) -> int:
        return 0x54000000 | (instructions & 0x7FFFF) << 5 | condition

    le, ne, svc = 0b1101, 0b0001, 0xD4000001
    words = [
        0,  # 0: adr x1, text
        movz(2, length),
        movz(0, 1),  # 2: the loop
        movz(8, _ARM_WRITE),
        svc,
        0xF100001F,  # cmp x0, #0
        branch_if(le, 12 - 6),
        0x8B000021,  # add x1, x1, x0
        0xEB000042,  # subs x2, x2, x0
        branch_if(ne, 2 - 9),
        movz(0, 0),
        0x14000000 | 13 - 11,  # b past the failure's mov
        movz(0, 1),  # 12: the failure
        movz(8, _ARM_EXIT_GROUP),
        svc,
    ]
    distance = len(words) * 4
    words[0] = 0x10000000 | (distance & 3) << 29 | (distance >> 2) << 5 | 1
    return struct.pack(f"<{len(words)}I", *words)


# Kernel's machine name -> ELF's e_machine, code, and the image specification's platform.
_MACHINES: dict[str, tuple[int, Callable[[int], bytes], dict[str, str]]] = {
    "x86_64": (62, _emit_x86_64, {"architecture": "amd64"}),
    "aarch64": (183, _emit_aarch64, {"architecture": "arm64", "variant": "v8"}),
}


def hello_world_archive(machine: str | None = None) -> bytes:
    """The image as a tar that `load` takes (docker-archive: manifest.json, config, one layer).

    Args:
        machine: the architecture as `uname -m` says it; this machine's when not given.

    Raises:
        Unsupported: for an architecture that the program is not written for.
    """
    machine = machine or platform.machine()
    layer = _tar({"hello": (hello_program(machine), 0o755)})
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = {
        **_MACHINES[machine][2],
        "os": "linux",
        "created": CREATED,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["/hello"],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "history": [
            {"created": CREATED, "created_by": "COPY hello /hello", "comment": "built in"},
            {"created": CREATED, "created_by": 'CMD ["/hello"]', "empty_layer": True},
        ],
    }
    config_bytes = json.dumps(config, separators=(",", ":"), sort_keys=True).encode()
    config_name = f"{hashlib.sha256(config_bytes).hexdigest()}.json"
    layer_name = f"{layer_digest}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [REFERENCE], "Layers": [layer_name]}]
    return _tar(
        {
            config_name: (config_bytes, 0o644),
            layer_name: (layer, 0o644),
            "manifest.json": (json.dumps(manifest).encode(), 0o644),
        }
    )


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A tar of regular files with everything in it fixed: root's, from the epoch."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()
