"""Device programs, run by a small eBPF interpreter, decide as their rules say."""

import itertools
import struct

import pytest

from sampan.linux.device_filter import compile_rules
from sampan.linux.device_rules import DeviceRule, parse, with_defaults

M, R, W = 1, 2, 4
DENY_ALL = {"allow": False, "access": "rwm"}


def run(program: bytes, kind: str, major: int, minor: int, access: int) -> int:
    context = struct.pack("<III", access << 16 | {"b": 1, "c": 2}[kind], major, minor)
    code = list(struct.iter_unpack("=BBhi", program))
    registers = [None, 0, *[None] * 8]
    position = 0
    while True:
        operation, pair, offset, immediate = code[position]
        position += 1
        dst, src = pair & 15, pair >> 4
        if operation == 0x61:
            (registers[dst],) = struct.unpack_from("<I", context, registers[src] + offset)
        elif operation == 0xBF:
            registers[dst] = registers[src]
        elif operation == 0xB7:
            registers[dst] = immediate
        elif operation == 0x54:
            registers[dst] &= immediate
        elif operation == 0x74:
            registers[dst] >>= immediate
        elif operation == 0x15:
            position += offset if registers[dst] == immediate else 0
        elif operation == 0x55:
            position += offset if registers[dst] != immediate else 0
        else:
            assert operation == 0x95
            return registers[0]


def reference(rules, kind, major, minor, access):
    def verdict(bit, letter):
        for rule in reversed(rules):
            if (
                rule.kind in ("a", kind)
                and rule.major in (None, major)
                and rule.minor in (None, minor)
                and letter in rule.access
            ):
                return rule.allow
        return False

    return int(all(verdict(bit, letter) for bit, letter in ((M, "m"), (R, "r"), (W, "w")) if access & bit))


RULE_SETS = [
    [DENY_ALL],
    [{"allow": True, "access": "rwm"}],
    [DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "r"}],
    [DENY_ALL, {"allow": True, "type": "c", "major": 10, "access": "rw"},
     {"allow": False, "type": "c", "major": 10, "minor": 200, "access": "w"}],
    [DENY_ALL, {"allow": True, "type": "b", "access": "rwm"}, {"allow": False, "type": "b", "major": 8}],
    [DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "r"},
     {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "w"}],
]  # fmt: skip


@pytest.mark.parametrize("given", RULE_SETS)
def test_each_letter_is_decided_by_the_last_rule_that_names_it(given):
    rules = with_defaults(given)
    program = compile_rules(rules)
    devices = [
        ("c", 10, 200),
        ("c", 10, 1),
        ("b", 8, 0),
        ("b", 7, 0),
        ("c", 1, 3),
        ("c", 136, 5),
        ("c", 5, 1),
    ]
    for (kind, major, minor), access in itertools.product(devices, range(1, 8)):
        wanted = reference(rules, kind, major, minor, access)
        assert run(program, kind, major, minor, access) == wanted, (kind, major, minor, access)


def test_a_container_without_rules_of_its_own_has_the_default_devices_only():
    program = compile_rules(with_defaults([DENY_ALL]))
    assert run(program, "c", 1, 3, R | W)
    assert run(program, "b", 8, 0, M)  # a node may be made …
    assert not run(program, "b", 8, 0, R)  # … and not be opened
    assert not run(program, "c", 5, 1, W)


def test_nothing_is_allowed_without_a_rule():
    assert run(compile_rules([]), "c", 1, 3, R) == 0


def test_v1_spelling_and_mistakes():
    assert str(DeviceRule(True, "c", 1, None, "rw")) == "c 1:* rw"
    assert [str(rule) for rule in parse([{"allow": False}])] == ["a"]
    assert [str(rule) for rule in parse([{"allow": False, "major": 4}])] == ["c 4:* rwm", "b 4:* rwm"]
    with pytest.raises(ValueError, match="type"):
        parse([{"type": "x"}])
    with pytest.raises(ValueError, match="access"):
        parse([{"type": "c", "access": "rx"}])
