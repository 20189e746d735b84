"""Compiled seccomp programs, run by a small interpreter, decide as their profiles say."""

import errno
import json
import struct

import pytest

from sampan.engine.spec.seccomp import default_profile
from sampan.errors import InvalidParameter, Unsupported
from sampan.linux import capabilities, seccomp
from sampan.linux.syscall_table import X32_BIT, table

X86_64, X86, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
ALLOW, KILL, LOG, TRAP = 0x7FFF0000, 0x80000000, 0x7FFC0000, 0x30000
EPERM, ENOSYS = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS


def run(program: bytes, number: int, *arguments: int, arch: int = X86_64) -> int:
    """What the kernel's classic BPF machine returns for a call."""
    code = list(struct.iter_unpack("=HBBI", program))
    padded = [value & 2**64 - 1 for value in (*arguments, *[0] * 6)][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    accumulator = position = 0
    while True:
        operation, jt, jf, k = code[position]
        position += 1
        if operation == 0x20:
            assert k % 4 == 0 and k < 64
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x05:
            position += k
        elif operation == 0x06:
            return k
        else:
            taken = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[operation]
            position += jt if taken else jf


def compiled(*rules, default="SCMP_ACT_ALLOW", machine="x86_64", **more) -> bytes:
    return seccomp.compile_filter({"defaultAction": default, "syscalls": list(rules), **more}, machine)


def rule(name, action="SCMP_ACT_ERRNO", *args, **more):
    members = ("index", "op", "value", "valueTwo")
    conditions = [dict(zip(members, arg, strict=False)) for arg in args]
    return {"names": [name], "action": action, "args": conditions, **more}


def test_every_number_of_every_architecture_is_decided_by_its_rule():
    names = ["read", "write", "mkdir", "openat", "socket", "execve", "clock_gettime64", "cacheflush"]
    profile = {
        "defaultAction": "SCMP_ACT_LOG",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO"}],
    }
    for machine, pairs in {
        "x86_64": [("X86_64", X86_64), ("X86", X86), ("X32", X86_64)],
        "aarch64": [("AARCH64", AARCH64), ("ARM", ARM)],
    }.items():
        program = seccomp.compile_filter(profile, machine)
        for name, audit in pairs:
            numbers = table(f"SCMP_ARCH_{name}")
            wanted = {numbers[each] for each in names if each in numbers}
            base = X32_BIT if name == "X32" else 0
            for number in range(base, base + 600):
                got = run(program, number, arch=audit)
                assert got == (EPERM if number in wanted else LOG), (name, number)


def test_another_architecture_kills():
    program = compiled()
    assert run(program, 0, arch=X86) == KILL
    assert run(program, 0, arch=AARCH64) == KILL
    assert run(program, X32_BIT) == KILL
    assert run(program, -1) == ALLOW  # a call that a tracer has cancelled
    assert run(compiled(machine="aarch64"), 0, arch=ARM) == KILL


CASES = [0, 1, 7, 8, 9, 0xFFFFFFFF, 2**32, 2**32 + 8, 2**33 - 1, 2**63, 2**64 - 1]


@pytest.mark.parametrize("value", [0, 8, 0xFFFFFFFF, 2**32 + 8, 2**64 - 1])
@pytest.mark.parametrize(
    ("operator", "holds"),
    [
        ("NE", lambda a, b: a != b), ("EQ", lambda a, b: a == b), ("LT", lambda a, b: a < b),
        ("LE", lambda a, b: a <= b), ("GT", lambda a, b: a > b), ("GE", lambda a, b: a >= b),
    ],
)  # fmt: skip
def test_arguments_are_compared_in_all_64_bits(operator, holds, value):
    for index in (0, 5):
        program = compiled(rule("mkdir", "SCMP_ACT_ERRNO", (index, f"SCMP_CMP_{operator}", value)))
        for case in CASES:
            given = [3] * 6
            given[index] = case
            wanted = EPERM if holds(case, value) else ALLOW
            assert run(program, 83, *given) == wanted, (operator, case, value)


def test_masked_comparison():
    program = compiled(rule("clone", "SCMP_ACT_ERRNO", (0, "SCMP_CMP_MASKED_EQ", 0xF000000F0, 0x300000050)))
    assert run(program, 56, 0x35000FF6F) == ALLOW
    assert run(program, 56, 0x30000FF5F) == EPERM
    assert run(program, 56, 0x10000FF5F) == ALLOW


def test_on_32_bit_architectures_only_the_low_half_counts():
    program = compiled(
        rule("mkdir", "SCMP_ACT_ERRNO", (1, "SCMP_CMP_EQ", 2**64 - 1)), architectures=["SCMP_ARCH_X86"]
    )
    assert run(program, 39, 0, 0xFFFFFFFF, arch=X86) == EPERM
    assert run(program, 83, 0, 0xFFFFFFFF) == ALLOW


def test_conditions_on_several_arguments_all_hold_and_on_one_are_alternatives():
    both = compiled(rule("mkdir", "SCMP_ACT_ERRNO", (0, "SCMP_CMP_EQ", 1), (1, "SCMP_CMP_GT", 5)))
    assert [run(both, 83, *args) for args in ((1, 6), (1, 5), (2, 6))] == [EPERM, ALLOW, ALLOW]
    either = compiled(rule("mkdir", "SCMP_ACT_ERRNO", (0, "SCMP_CMP_EQ", 1), (0, "SCMP_CMP_EQ", 9)))
    assert [run(either, 83, value) for value in (1, 9, 2)] == [EPERM, EPERM, ALLOW]


def test_conditional_rules_come_before_plain_ones_and_then_in_order():
    program = compiled(
        rule("mkdir", "SCMP_ACT_LOG"),
        rule("mkdir", "SCMP_ACT_TRAP", (0, "SCMP_CMP_GT", 10)),
        rule("mkdir", "SCMP_ACT_ERRNO", (0, "SCMP_CMP_GT", 5), errnoRet=95),
    )
    assert [run(program, 83, value) for value in (11, 6, 5)] == [TRAP, 0x5005F, LOG]


def test_actions_and_their_data():
    actions = {
        "KILL": 0,
        "KILL_THREAD": 0,
        "KILL_PROCESS": KILL,
        "TRAP": TRAP,
        "LOG": LOG,
        "TRACE": 0x7FF00001,
    }
    for name, value in actions.items():
        assert run(compiled(rule("mkdir", f"SCMP_ACT_{name}")), 83) == value
    assert run(compiled(rule("mkdir", "SCMP_ACT_TRACE", errnoRet=7)), 83) == 0x7FF00007
    assert run(compiled(default="SCMP_ACT_ERRNO", defaultErrnoRet=13), 83) == 0x5000D


def test_calls_newer_than_a_restrictive_profile_do_not_exist():
    program = compiled(rule("statx", "SCMP_ACT_ALLOW"), default="SCMP_ACT_ERRNO")
    assert run(program, 331) == EPERM
    assert run(program, 332) == ALLOW
    assert run(program, 439) == ENOSYS
    assert run(compiled(rule("statx")), 439) == ALLOW


def test_32_bit_x86_cannot_go_round_a_rule_through_socketcall():
    program = compiled(rule("socket"), rule("shmat"), architectures=["SCMP_ARCH_X86"])
    assert run(program, 102, 1, arch=X86) == EPERM
    assert run(program, 102, 2, arch=X86) == ALLOW
    assert run(program, 117, 21, arch=X86) == EPERM


def test_what_cannot_be_done_is_refused_by_name():
    for profile, error, text in (
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, Unsupported, "SCMP_ACT_NOTIFY"),
        ({"defaultAction": "ALLOW"}, InvalidParameter, "'ALLOW'"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}, Unsupported, "listenerPath"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x"]}, InvalidParameter, "'x'"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("a", "SCMP_ACT_LOG", (6, "SCMP_CMP_EQ"))]},
         InvalidParameter, "index 6"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("a", "SCMP_ACT_LOG", (0, "SCMP_CMP_IS"))]},
         InvalidParameter, "SCMP_CMP_IS"),
    ):  # fmt: skip
        with pytest.raises(error, match=text):
            seccomp.compile_filter(profile, "x86_64")
    with pytest.raises(Unsupported, match="riscv64"):
        compiled(machine="riscv64")
    with pytest.raises(InvalidParameter, match="FLAG_X"):
        seccomp.flags_of({"flags": ["SECCOMP_FILTER_FLAG_X"]})
    assert seccomp.flags_of({"flags": ["SECCOMP_FILTER_FLAG_LOG"]}) == seccomp.FLAG_LOG


def test_the_default_profile_is_an_allow_list():
    program = seccomp.compile_filter(default_profile(capabilities.DEFAULT), "x86_64")
    numbers = table("SCMP_ARCH_X86_64")
    for name in ("read", "execve", "openat2", "chroot", "ptrace", "fchmodat2", "mseal"):
        assert run(program, numbers[name]) == ALLOW, name
    for name in ("mount", "unshare", "bpf", "keyctl", "kexec_load", "io_uring_setup", "userfaultfd", "reboot",
                 "init_module", "swapon", "settimeofday", "open_by_handle_at", "pidfd_getfd"):  # fmt: skip
        assert run(program, numbers[name]) == EPERM, name
    assert run(program, numbers["clone3"]) == ENOSYS
    assert run(program, numbers["clone"], 0x11) == ALLOW
    for flag in (0x10000000, 0x20000, 0x40000000, 0x2000000):
        assert run(program, numbers["clone"], 0x11 | flag) == EPERM
    assert [run(program, numbers["socket"], family) for family in (2, 40)] == [ALLOW, EPERM]
    assert [run(program, numbers["personality"], value) for value in (0, 8, 4)] == [ALLOW, ALLOW, EPERM]
    assert run(program, X32_BIT | numbers["mount"]) == EPERM
    assert run(program, table("SCMP_ARCH_X86")["mount"], arch=X86) == EPERM
    assert len(program) // 8 < 1500


def test_capabilities_open_the_calls_they_are_for():
    program = seccomp.compile_filter(default_profile(["CAP_SYS_ADMIN", "CAP_SYS_TIME"]), "x86_64")
    numbers = table("SCMP_ARCH_X86_64")
    for name in ("mount", "unshare", "clone3", "settimeofday"):
        assert run(program, numbers[name]) == ALLOW
    assert run(program, numbers["clone"], 0x10000000) == ALLOW
    assert run(program, numbers["chroot"]) == EPERM


def test_equal_profiles_are_compiled_once():
    profile = default_profile(capabilities.DEFAULT)
    again = json.loads(json.dumps(profile))
    assert seccomp.compile_filter(profile) is seccomp.compile_filter(again)


def test_the_default_profile_for_aarch64():
    from sampan.engine.spec import seccomp as profiles

    profile = profiles._default(frozenset(capabilities.DEFAULT), "aarch64")
    program = seccomp.compile_filter(profile, "aarch64")
    wide, narrow = table("SCMP_ARCH_AARCH64"), table("SCMP_ARCH_ARM")
    assert run(program, wide["openat"], arch=AARCH64) == ALLOW
    assert run(program, wide["mount"], arch=AARCH64) == EPERM
    assert run(program, wide["clone"], 0x10000000, arch=AARCH64) == EPERM
    assert [run(program, narrow[name], arch=ARM) for name in ("set_tls", "mount")] == [ALLOW, EPERM]
    assert run(program, wide["openat"]) == KILL
