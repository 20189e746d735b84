"""`docker create` refuses by name, warns in Docker's words, and completes what was left open."""

import dataclasses

import pytest

from sampan.engine.model import (
    ContainerConfig,
    DeviceMapping,
    HostConfig,
    Ulimit,
    WeightDevice,
)
from sampan.engine.spec import validate_host_config
from sampan.errors import InvalidParameter, Unsupported
from sampan.linux.cgroups import Features

ALL = Features(
    **{field.name: True for field in dataclasses.fields(Features) if field.name not in ("cpus", "mems")}
    | {"version": 1, "cpus": frozenset((0, 1)), "mems": frozenset((0,))}
)
NOTHING = dataclasses.replace(
    ALL, **{field.name: False for field in dataclasses.fields(Features) if field.type == "bool"}
)
MIB = 1 << 20


def check(machine=ALL, config=None, **options):
    host_config = HostConfig(**{"network_mode": "bridge", **options})
    return host_config, validate_host_config(config or ContainerConfig(), host_config, machine)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"memory": 5 * MIB}, "Minimum memory limit allowed is 6MB"),
        ({"memory": 9 * MIB, "memory_swap": 8 * MIB}, "Minimum memoryswap limit should be larger"),
        ({"memory_swap": 8 * MIB}, "You should always set the Memory limit when using Memoryswap"),
        ({"memory": 8 * MIB, "memory_reservation": 9 * MIB}, "can not be less than memory reservation"),
        ({"memory_swappiness": 101}, "valid memory swappiness range is 0-100"),
        ({"nano_cpus": 3_000_000_000}, r"range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs"),
        ({"nano_cpus": 10**9, "cpu_quota": 5000}, "Nano CPUs and CPU Quota cannot both be set"),
        ({"cpu_period": 10}, "CPU cfs period can not be less than 1ms"),
        ({"cpuset_cpus": "0-5"}, "Requested CPUs are not available - requested 0-5, available: 0-1"),
        ({"cpuset_mems": "x"}, "Invalid value x for cpuset mems"),
        ({"blkio_weight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"oom_score_adj": 1001}, r"range for oom score adj is \[-1000, 1000\]"),
        ({"shm_size": -1}, "SHM size can not be less than 0"),
        ({"ipc_mode": "x"}, "invalid IPC mode: x"),
        ({"pid_mode": "container:"}, "invalid PID mode: container:"),
        ({"uts_mode": "container:x"}, "invalid UTS mode"),
        ({"cgroupns_mode": "x"}, "invalid cgroup namespace mode: x"),
        ({"userns_mode": "x"}, "invalid user namespace mode: x"),
        ({"cap_add": ["foo"]}, 'invalid CapAdd: unknown capability: "CAP_FOO"'),
        ({"cap_drop": ["CAP_FOO"]}, 'invalid CapDrop: unknown capability: "CAP_FOO"'),
        ({"security_opt": ["x"]}, 'invalid --security-opt 1: "x"'),
        ({"security_opt": ["x=y"]}, 'invalid --security-opt 2: "x=y"'),
        ({"security_opt": ["no-new-privileges=x"]}, "invalid --security-opt 2"),
        ({"security_opt": ["seccomp={"]}, "Decoding seccomp profile failed"),
        ({"sysctls": {"kernel.panic": "1"}}, 'sysctl "kernel.panic" is not in a separate kernel namespace'),
        ({"sysctls": {"kernel.hostname": "x"}}, 'conflicts with the OCI "hostname" field'),
        ({"sysctls": {"net.x": "1"}, "network_mode": "host"}, 'sysctl "net.x" not allowed in host network'),
        ({"sysctls": {"fs.mqueue.x": "1"}, "ipc_mode": "host"}, "not allowed in the hosts ipc namespace"),
        ({"devices": [DeviceMapping("/dev/x", "/dev/x", "rx")]}, "invalid device mode 'rx'"),
        ({"device_cgroup_rules": ["c 1 rwm"]}, "invalid device cgroup rule format: 'c 1 rwm'"),
        ({"tmpfs": {"/x": "colour=red"}}, r'invalid tmpfs option \["colour" "red"\]'),
        ({"ulimits": [Ulimit("files", 1, 1)]}, "invalid ulimit type: files"),
        ({"ulimits": [Ulimit("nofile", 2, 1)]}, "must be less than or equal to hard limit: 2 > 1"),
        ({"isolation": "hyperv"}, "isolation"),
        ({"storage_opt": {"size": "-1"}}, "--storage-opt size: invalid size: '-1'"),
        ({"storage_opt": {"colour": "red"}}, "--storage-opt: unknown option colour"),
        ({"cgroup_parent": "/a/../.."}, "cgroup parent"),
        ({"network_mode": "container:x", "dns": ["1.1.1.1"]}, "conflicting options: dns"),
    ],
)
def test_what_is_wrong_is_refused(options, complaint):
    with pytest.raises(InvalidParameter, match=complaint):
        check(**options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"device_requests": [{"Count": 1}]}, "--gpus"),
        ({"security_opt": ["label=type:x"]}, "SELinux"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(options, named):
    with pytest.raises(Unsupported, match=named):
        check(**options)


def test_what_the_machine_lacks_is_discarded_with_a_warning():
    host_config, warnings = check(
        NOTHING, memory=64 * MIB, memory_reservation=32 * MIB, cpu_shares=5, cpuset_cpus="0", pids_limit=5,
        blkio_weight=10, blkio_weight_device=[WeightDevice("/dev/sda", 10)], memory_swappiness=1,
        oom_kill_disable=True, cpu_quota=5000,
    )  # fmt: skip
    assert len(warnings) == 10
    assert "Your kernel does not support memory limit capabilities" in warnings[0]
    assert (host_config.memory, host_config.cpuset_cpus, host_config.pids_limit) == (0, "", None)
    no_swap = dataclasses.replace(ALL, swap=False)
    host_config, warnings = check(no_swap, memory=64 * MIB, memory_swap=64 * MIB)
    assert host_config.memory_swap == -1
    assert warnings == [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
        "Memory limited without swap."
    ]
    with pytest.raises(InvalidParameter, match="NanoCPUs can not be set"):
        check(NOTHING, nano_cpus=10**9)


def test_a_container_without_limits_is_told_nothing_on_any_machine():
    assert check(NOTHING)[1] == []


def test_what_was_left_open_is_filled_in():
    host_config, warnings = check(memory=64 * MIB)
    assert (host_config.memory_swap, warnings) == (128 * MIB, [])
    assert "/proc/kcore" in host_config.masked_paths
    assert "/proc/sys" in host_config.readonly_paths
    assert host_config.cgroupns_mode == "private"
    assert check(privileged=True)[0].masked_paths == []


def test_the_working_directory_and_the_environment():
    with pytest.raises(InvalidParameter, match="the working directory 'x' is invalid"):
        check(config=ContainerConfig(working_dir="x"))
    with pytest.raises(InvalidParameter, match="invalid environment variable: =x"):
        check(config=ContainerConfig(env=["=x"]))
    with pytest.raises(InvalidParameter, match="hostname and the UTS mode"):
        check(config=ContainerConfig(hostname="not-this-machines"), uts_mode="host")
