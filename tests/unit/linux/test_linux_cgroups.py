"""Control groups on paper: layouts, conversions, and which file gets which value."""

import pytest

from sampan.errors import InvalidParameter
from sampan.linux import cgroups
from sampan.linux.cgroups import convert, layout
from sampan.linux.cgroups.layout import Layout

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
34 31 0:31 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
"""
UNIFIED = "35 31 0:32 / {} rw,relatime - cgroup2 cgroup2 rw\n"


def test_layouts():
    pure = layout.parse(V1)
    assert (pure.version, pure.unified) == (1, None)
    assert pure.hierarchies["cpuacct"] == "/sys/fs/cgroup/cpu,cpuacct"
    assert set(pure.hierarchies) == {"cpu", "cpuacct", "memory", "name=systemd"}
    hybrid = layout.parse(V1 + UNIFIED.format("/sys/fs/cgroup/unified"))
    assert (hybrid.version, hybrid.unified) == (1, "/sys/fs/cgroup/unified")
    assert layout.parse(UNIFIED.format("/sys/fs/cgroup")) == Layout(2, "/sys/fs/cgroup")
    assert layout.parse(UNIFIED.format("/my\\040cgroups")).unified == "/my cgroups"
    with pytest.raises(FileNotFoundError):
        layout.parse("")


def test_weights_meet_at_the_ends_and_at_the_defaults():
    assert [convert.cpu_weight(shares) for shares in (2, 1024, 262144)] == [1, 100, 10000]
    weights = [convert.cpu_weight(shares) for shares in range(2, 262145, 97)]
    assert weights == sorted(weights)
    assert [convert.io_weight(weight) for weight in (10, 1000)] == [1, 10000]


def test_swap_is_what_remains_of_the_sum():
    assert convert.swap_maximum(100, 300) == "200"
    assert convert.swap_maximum(100, 100) == "0"
    assert convert.swap_maximum(100, -1) == "max"
    for limit, swap in ((0, 100), (100, 99)):
        with pytest.raises(InvalidParameter):
            convert.swap_maximum(limit, swap)


@pytest.mark.parametrize("path", ["", "/", "..", "/a/../../b", "/../x"])
def test_no_path_climbs_out(path):
    with pytest.raises(InvalidParameter):
        cgroups.manager_for(path, Layout(2, "/sys/fs/cgroup"))


def test_lists_of_numbers():
    assert cgroups.parse_list("0-2,7\n") == {0, 1, 2, 7}
    assert cgroups.parse_list("") == frozenset()
    for text in ("a", "1-", "-1", "3-1", "0-99999999", "1;2"):
        with pytest.raises(ValueError):
            cgroups.parse_list(text)


RESOURCES = {
    "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
    "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0-1"},
    "pids": {"limit": 10},
    "blockIO": {"weight": 10, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 4096}]},
    "unified": {"memory.high": "70000000"},
}


def fake(directory, names):
    directory.mkdir(parents=True)
    for name in names:
        (directory / name).write_text("")


def test_v2_files(tmp_path):
    names = ["memory.max", "memory.swap.max", "memory.low", "memory.high", "cpu.weight", "cpu.max"]
    names += ["cpuset.cpus", "pids.max", "io.weight", "io.max"]
    fake(tmp_path / "sampan" / "x", names)
    manager = cgroups.manager_for("/sampan/x", Layout(2, str(tmp_path)))
    assert manager.update(RESOURCES) == []
    got = {name: (tmp_path / "sampan/x" / name).read_text() for name in names}
    assert got == {
        "memory.max": str(64 << 20), "memory.swap.max": str(32 << 20), "memory.low": str(32 << 20),
        "memory.high": "70000000", "cpu.weight": "100", "cpu.max": "50000 100000", "cpuset.cpus": "0-1",
        "pids.max": "10", "io.weight": "1", "io.max": "8:0 rbps=4096",
    }  # fmt: skip


def test_v2_enables_controllers_from_the_root_down(tmp_path):
    for directory in (tmp_path, tmp_path / "sampan"):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text("cpu memory pids\n")
        (directory / "cgroup.subtree_control").write_text("")
    cgroups.manager_for("/sampan/x", Layout(2, str(tmp_path))).create(None)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (tmp_path / "sampan/cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (tmp_path / "sampan/x").is_dir()


def test_a_limit_without_its_controller_is_named(tmp_path):
    (tmp_path / "x").mkdir()
    manager = cgroups.manager_for("/x", Layout(2, str(tmp_path)))
    with pytest.raises(FileNotFoundError, match=r"memory\.max.*memory cgroup controller is not available"):
        manager.update({"memory": {"limit": 1 << 26}})
    with pytest.raises(InvalidParameter, match="unified"):
        manager.update({"unified": {"../memory.max": "1"}})
    manager = cgroups.manager_for("/x", Layout(1, None, {"pids": str(tmp_path)}))
    with pytest.raises(FileNotFoundError, match="memory limits: the memory cgroup is not mounted"):
        manager.update({"memory": {"limit": 1 << 26}})
    with pytest.raises(InvalidParameter, match="cgroup v1"):
        manager.update({"unified": {"memory.high": "1"}})


def test_a_failed_creation_leaves_nothing(tmp_path):
    (tmp_path / "cgroup.subtree_control").write_text("")
    manager = cgroups.manager_for("/x", Layout(2, str(tmp_path)))
    with pytest.raises(FileNotFoundError):
        manager.create({"pids": {"limit": 5}})
    assert not manager.exists()


def test_removal_stays_in_its_own_path(tmp_path, monkeypatch):
    from sampan.linux.cgroups import manager as module

    monkeypatch.setattr(module, "_PATIENCE_S", 0.01)
    (tmp_path / "x").mkdir()
    (tmp_path / "outside/kept").mkdir(parents=True)
    (tmp_path / "x/link").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="cannot remove the cgroup"):
        cgroups.manager_for("/x", Layout(2, str(tmp_path))).remove()
    assert (tmp_path / "outside/kept").is_dir()


def test_v1_files(tmp_path):
    roots = {name: str(tmp_path / name) for name in ("memory", "cpu", "cpuset", "pids", "blkio")}
    fake(
        tmp_path / "memory/x",
        ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes"],
    )
    fake(tmp_path / "cpu/x", ["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us"])
    fake(tmp_path / "cpuset/x", ["cpuset.cpus"])
    fake(tmp_path / "pids/x", ["pids.max"])
    fake(tmp_path / "blkio/x", ["blkio.weight", "blkio.throttle.read_bps_device"])
    manager = cgroups.manager_for("/x", Layout(1, None, roots))
    manager.update({key: value for key, value in RESOURCES.items() if key != "unified"})
    read = {path.name: path.read_text() for path in tmp_path.glob("*/x/*")}
    assert read["memory.limit_in_bytes"] == str(64 << 20)
    assert read["memory.memsw.limit_in_bytes"] == str(96 << 20)
    assert (read["cpu.shares"], read["cpu.cfs_quota_us"], read["cpuset.cpus"]) == ("1024", "50000", "0-1")
    assert (read["blkio.weight"], read["blkio.throttle.read_bps_device"]) == ("10", "8:0 4096")


def test_statistics_of_v2(tmp_path):
    directory = tmp_path / "x"
    directory.mkdir()
    contents = {
        "cpu.stat": "usage_usec 7\nuser_usec 5\nnr_throttled 2\n",
        "memory.current": "99", "memory.max": "max",
        "memory.stat": "anon 11\nfile 3\n", "memory.events": "max 4\noom_kill 1\n", "pids.current": "3",
        "pids.max": "9", "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n",
    }  # fmt: skip
    for name, text in contents.items():
        (directory / name).write_text(text)
    manager = cgroups.manager_for("/x", Layout(2, str(tmp_path)))
    stats = manager.stats()
    assert (stats.cpu_total_ns, stats.cpu_user_ns, stats.throttled_periods) == (7000, 5000, 2)
    assert (stats.memory_usage_bytes, stats.memory_limit_bytes, stats.memory["anon"]) == (99, None, 11)
    assert (stats.pids_current, stats.pids_limit, manager.oom_kills()) == (3, 9, 1)
    assert [(entry.operation, entry.value) for entry in stats.blkio_operations][:2] == [
        ("Read", 3),
        ("Write", 4),
    ]


def fill(directory, values):
    directory.mkdir()
    for name, value in values.items():
        (directory / name).write_text(value)


def test_an_update_is_all_or_nothing_on_v2(tmp_path):
    before = {"pids.max": "11", "cpu.max": "20000 100000", "memory.max": "70000000"}
    fill(tmp_path / "box", before)
    manager = cgroups.manager_for("/box", Layout(2, str(tmp_path)))
    wanted = {
        "pids": {"limit": 22},
        "cpu": {"quota": 30000, "period": 100000},
        "memory": {"limit": 80000000, "swap": 90000000},  # there is no memory.swap.max
    }
    with pytest.raises(FileNotFoundError):
        manager.update(wanted)
    assert {name: (tmp_path / "box" / name).read_text() for name in before} == before
    del wanted["memory"]["swap"]
    manager.update(wanted)
    assert (tmp_path / "box" / "pids.max").read_text() == "22"
    assert (tmp_path / "box" / "memory.max").read_text() == "80000000"
    manager.revert()
    assert {name: (tmp_path / "box" / name).read_text() for name in before} == before


def test_an_update_is_all_or_nothing_on_v1(tmp_path):
    before = {"pids.max": "11", "cpu.shares": "1024", "memory.limit_in_bytes": "70000000"}
    fill(tmp_path / "box", before)
    hierarchies = dict.fromkeys(("pids", "cpu", "memory"), str(tmp_path))
    manager = cgroups.manager_for("/box", Layout(1, None, hierarchies))
    wanted = {
        "pids": {"limit": 22},
        "cpu": {"shares": 2048},
        "memory": {"limit": 60000000, "swap": 90000000},  # there is no memory.memsw.limit_in_bytes
    }
    with pytest.raises(FileNotFoundError):
        manager.update(wanted)
    assert {name: (tmp_path / "box" / name).read_text() for name in before} == before
