"""`update` on paper: what is contradicted, and which of the kernel's limits change together."""

import dataclasses

import pytest

from sampan.engine.model import HostConfig, RestartPolicy
from sampan.engine.updating import changes, merged
from sampan.errors import Conflict, InvalidParameter

MIB = 1 << 20


def host(**values):
    return HostConfig(restart_policy=RestartPolicy("no"), **values)


def path(old, **wanted):
    return changes(old, merged(old, HostConfig(**wanted)))


def test_what_is_not_named_stays():
    old = host(memory=64 * MIB, memory_swap=128 * MIB, cpu_shares=5, pids_limit=7)
    assert merged(old, HostConfig()) == old
    assert path(old) == {}
    assert path(old, cpu_shares=9) == {"cpu": {"shares": 9}}
    assert path(old, memory_reservation=9 * MIB) == {"memory": {"reservation": 9 * MIB}}


def test_pairs_go_together():
    old = host(memory=64 * MIB, memory_swap=128 * MIB, cpu_quota=5000, cpu_period=10000)
    assert path(old, memory=100 * MIB) == {"memory": {"limit": 100 * MIB, "swap": 128 * MIB}}
    assert path(old, memory_swap=-1) == {"memory": {"limit": 64 * MIB, "swap": -1}}
    assert path(old, cpu_period=20000) == {"cpu": {"period": 20000, "quota": 5000}}
    assert path(old, cpu_quota=-1) == {"cpu": {"period": 10000, "quota": -1}}


def test_processes():
    assert path(host(pids_limit=7), pids_limit=0) == {"pids": {"limit": -1}}
    assert path(host(pids_limit=7), pids_limit=9) == {"pids": {"limit": 9}}
    assert path(host(), pids_limit=0) == {}


@pytest.mark.parametrize(
    ("old", "wanted"),
    [
        ({"cpu_period": 10000}, {"nano_cpus": 1}),
        ({"cpu_quota": 10000}, {"nano_cpus": 1}),
        ({"nano_cpus": 1}, {"cpu_period": 1000}),
        ({"nano_cpus": 1}, {"cpu_quota": 1000}),
        ({"memory": 64 * MIB, "memory_swap": 64 * MIB}, {"memory": 65 * MIB}),
        ({}, {"memory": 65 * MIB}),
        ({"auto_remove": True}, {"restart_policy": RestartPolicy("always")}),
    ],
)
def test_conflicts(old, wanted):
    before = host(**old)
    copy = dataclasses.replace(before)
    with pytest.raises(Conflict):
        merged(before, HostConfig(**wanted))
    assert before == copy


@pytest.mark.parametrize(
    "wanted",
    [{"memory_swap": 32 * MIB}],
)
def test_contradictions_with_what_it_has(wanted):
    old = host(memory=64 * MIB, memory_swap=64 * MIB, memory_reservation=10 * MIB)
    with pytest.raises(InvalidParameter):
        merged(old, HostConfig(**wanted))
