"""Ways round the system call filter: other calling conventions, other numbers, other processes' rights."""

import ctypes
import errno
import mmap
import os
import platform

import pytest

from sampan.engine.spec.seccomp import default_profile
from sampan.linux import capabilities, seccomp, syscalls
from sampan.linux.syscall_table import X32_BIT, table

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="needs x86-64's other calling conventions"),
]
FORBIDDEN = ("mount", "unshare", "setns", "bpf", "keyctl", "init_module", "userfaultfd", "kexec_load")


def int80(number: int) -> int:
    """A call of 32-bit x86, made by a 64-bit process, with bad arguments."""
    code = b"\xb8" + number.to_bytes(4, "little") + b"\xbb\xff\xff\xff\xff\x31\xc9\x31\xd2\xcd\x80\xc3"
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # rbx belongs to the caller: kept on the stack around the call
    page.write(b"\x53" + code[:-1] + b"\x5b\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return ctypes.CFUNCTYPE(ctypes.c_int)(address)()


def confined(work) -> list[int]:
    """What `work` returns in a child with all of root's capabilities and the default profile's filter."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            seccomp.load(seccomp.compile_filter(default_profile(capabilities.DEFAULT)))
            os.write(theirs, repr(work()).encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with open(ours) as file:
        text = file.read()
    os.waitpid(pid, 0)
    if not text:
        pytest.skip("needs a kernel with IA32 emulation")
    return [int(word) for word in text.strip("[]").split(",")]


def test_the_32_bit_table_is_confined_too():
    numbers = table("SCMP_ARCH_X86")
    results = confined(lambda: [int80(numbers["getpid"]), *[int80(numbers[name]) for name in FORBIDDEN]])
    if results[0] < 0:
        pytest.skip("needs a kernel with IA32 emulation")
    assert results[1:] == [-errno.EPERM] * len(FORBIDDEN)


def test_the_x32_table_is_confined_too():
    def call(number: int) -> int:
        ctypes.set_errno(0)
        syscalls.libc.syscall(ctypes.c_long(number), ctypes.c_long(-1), None, None, None, None)
        return -ctypes.get_errno()

    numbers = table("SCMP_ARCH_X32")
    results = confined(lambda: [call(numbers[name]) for name in FORBIDDEN])
    assert results == [-errno.EPERM] * len(FORBIDDEN)
    assert all(numbers[name] & X32_BIT for name in FORBIDDEN)


def test_a_filter_cannot_be_taken_off():
    def loosen() -> list[int]:
        everything = seccomp.compile_filter({"defaultAction": "SCMP_ACT_ALLOW"})
        seccomp.load(everything)
        try:
            syscalls.unshare(syscalls.CLONE_NEWUTS)
        except OSError as error:
            return [-(error.errno or 0)]
        return [0]

    assert confined(loosen) == [-errno.EPERM]
