"""Kernel configurations of several versions through the doctor: what is listed, how, and the verdict."""

from __future__ import annotations

import gzip
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.doctor import judge, machine, tables
from sampan.linux import kconfig

SOURCE = Path(__file__).parents[3] / "src"

# What a machine needs, each kernel with the names of its time.
BASE = (
    "NAMESPACES NET_NS PID_NS IPC_NS UTS_NS CGROUPS VETH BRIDGE NF_NAT POSIX_MQUEUE CGROUP_DEVICE MEMCG "
    "NF_TABLES NF_TABLES_IPV4 NF_CONNTRACK NFT_CT NFT_NAT NFT_MASQ NFT_FIB_IPV4 SECCOMP SECCOMP_FILTER "
    "OVERLAY_FS"
).split()
OF_ITS_TIME = {
    (4, 4): ["DEVPTS_MULTIPLE_INSTANCES", "NF_NAT_IPV4", "NFT_CHAIN_NAT_IPV4", "NFT_MASQ_IPV4"],
    (4, 19): ["NF_NAT_IPV4", "NF_TABLES_SET", "CGROUP_BPF", "NFT_CHAIN_NAT_IPV4", "NFT_MASQ_IPV4"],
    (5, 6): ["NF_TABLES_SET", "CGROUP_BPF"],
    (5, 15): ["CGROUP_BPF"],
    (6, 1): ["CGROUP_BPF"],
    (6, 18): ["CGROUP_BPF"],
}


def text(version: tuple[int, int], without: str = "", modules: str = "", more: str = "") -> str:
    """A configuration as the kernel's build writes it."""
    names = [*BASE, *OF_ITS_TIME.get(version, []), *more.split()]
    lines = [
        "#",
        "# Automatically generated file; DO NOT EDIT.",
        f"# Linux/x86 {version[0]}.{version[1]}.7-demo Kernel Configuration",
        "#",
        'CONFIG_DEFAULT_HOSTNAME="(none)"',
        "CONFIG_HZ=250",
    ]
    for name in names:
        if name in without.split():
            lines.append(f"# CONFIG_{name} is not set")
        else:
            lines.append(f"CONFIG_{name}={'m' if name in modules.split() else 'y'}")
    return "\n".join(lines) + "\n"


def shown(*words: str, **environment: str) -> tuple[int, str]:
    """The doctor's report on a file, and its exit code."""
    done = subprocess.run(
        [sys.executable, "-m", "sampan.cli", "doctor", *words],
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def lines_of(version: tuple[int, int], cgroup: int = 0, **how: str) -> dict[str, str]:
    """Every line about an option: its name and its state."""
    found = kconfig.parse(text(version, **how), "config")
    assert found.version == version
    groups = judge.Judge(found, version, cgroup).groups()
    return {line.name: line.state for group in groups for line in group.all_lines()}


def test_the_tutorials_kernel(tmp_path: Path) -> None:
    """An edge node whose `docker run` fails with "operation not supported": the check names CONFIG_VETH."""
    file = tmp_path / "config.gz"
    config = text(
        (4, 14),
        without="VETH CGROUP_SCHED CGROUP_HUGETLB",
        modules="BRIDGE_NETFILTER",
        more="CGROUP_SCHED BRIDGE_NETFILTER NF_NAT_IPV4 NF_NAT_NEEDED MEMCG_SWAP MEMCG_SWAP_ENABLED "
        "IOSCHED_CFQ CFQ_GROUP_IOSCHED CGROUP_HUGETLB BTRFS_FS",
    )
    file.write_bytes(gzip.compress(config.encode()))
    code, said = shown("--config", str(file))
    assert code == 1
    assert said.startswith(f"info: reading kernel config from {file} ...\n\nGenerally Necessary:\n")
    for line in (
        "- CONFIG_NAMESPACES: enabled",
        "- CONFIG_CGROUP_SCHED: missing",
        "- CONFIG_VETH: missing",
        "    (will not work: bridge networks; --network none and host will)",
        "- CONFIG_BRIDGE_NETFILTER: enabled (as module)",
        "- CONFIG_NF_NAT_IPV4: enabled",
        "- CONFIG_NF_NAT_NEEDED: enabled",
        "- CONFIG_MEMCG_SWAP_ENABLED: enabled",
        "    (cgroup swap accounting is currently enabled)",
        "- CONFIG_IOSCHED_CFQ: enabled",
        "- CONFIG_CGROUP_HUGETLB: missing",
        '  - "overlay":',
        "    - CONFIG_VXLAN: missing",
        "      Optional (for encrypted networks):",
        "      - CONFIG_INET_XFRM_MODE_TRANSPORT: missing",
        '  - "ftp,tftp client in container":',
        '  - "aufs":',
        "    - CONFIG_BTRFS_FS: enabled",
        "    - CONFIG_OVERLAY_FS: enabled",
    ):
        assert line in said.splitlines(), line
    assert "\033" not in said and "Tried" not in said
    verdict = said[said.index("A machine with this kernel") :].splitlines()
    assert verdict[0] == "A machine with this kernel (Linux 4.14) cannot run containers as it should"
    assert "- CONFIG_VETH is missing: will not work: bridge networks; --network none and host will" in verdict
    assert any(line.startswith("- Linux is 4.14: Sampan needs 5.6") for line in verdict)


def test_sections_in_dockers_order(tmp_path: Path) -> None:
    file = tmp_path / "config-6.1.0-13-amd64"
    file.write_text(text((6, 1)))
    code, said = shown("--config", str(file))
    assert code == 0
    titles = [
        "Generally Necessary:",
        "- CONFIG_NAMESPACES:",
        "- CONFIG_VETH:",
        "- CONFIG_POSIX_MQUEUE:",
        "Optional Features:",
        "- CONFIG_USER_NS:",
        "- CONFIG_SECCOMP:",
        "- CONFIG_BLK_CGROUP:",
        "- CONFIG_EXT4_FS:",
        "- Network Drivers:",
        '"ipvlan":',
        '"macvlan":',
        "- Storage Drivers:",
        '"btrfs":',
        "A machine with this kernel (Linux 6.1) can run containers",
    ]
    places = [said.index(title) for title in titles]
    assert places == sorted(places)


@pytest.mark.parametrize("version", OF_ITS_TIME, ids=lambda version: ".".join(map(str, version)))
def test_nothing_needed_is_missing_with_the_names_of_the_time(version: tuple[int, int]) -> None:
    found = kconfig.parse(text(version), "config")
    groups = judge.Judge(found, version, 0).groups()
    missing = [line.name for group in groups for line in group.all_lines() if line.needed and not line.good]
    assert missing == []


@pytest.mark.parametrize(
    ("option", "last", "first_without"),
    [
        ("DEVPTS_MULTIPLE_INSTANCES", (4, 6), (4, 7)),
        ("NF_NAT_IPV4", (5, 0), (5, 1)),
        ("NF_NAT_NEEDED", (5, 1), (5, 2)),
        ("MEMCG_SWAP", (6, 0), (6, 1)),
        ("MEMCG_SWAP_ENABLED", (5, 7), (5, 8)),
        ("MEMCG_KMEM", (4, 4), (4, 5)),
        ("IOSCHED_CFQ", (4, 20), (5, 0)),
        ("INET_XFRM_MODE_TRANSPORT", (5, 1), (5, 2)),
        ("NF_TABLES_SET", (5, 6), (5, 7)),
    ],
)
def test_options_that_are_gone(option: str, last: tuple[int, int], first_without: tuple[int, int]) -> None:
    assert f"CONFIG_{option}" in lines_of(last)
    assert f"CONFIG_{option}" not in lines_of(first_without)


@pytest.mark.parametrize(
    ("option", "last_without", "first"),
    [
        ("CGROUP_BPF", (4, 14), (4, 15)),
        ("BFQ_GROUP_IOSCHED", (4, 20), (5, 0)),
        ("TIME_NS", (5, 5), (5, 6)),
        ("MEMCG_V1", (6, 10), (6, 11)),
        ("CGROUP_NET_PRIO", (3, 13), (3, 14)),
    ],
)
def test_options_that_came(option: str, last_without: tuple[int, int], first: tuple[int, int]) -> None:
    assert f"CONFIG_{option}" not in lines_of(last_without)
    assert f"CONFIG_{option}" in lines_of(first)


def test_each_version_of_cgroups_has_its_options() -> None:
    v1, v2 = lines_of((6, 1), cgroup=1), lines_of((6, 1), cgroup=2)
    assert "CONFIG_CGROUP_DEVICE" in v1 and "CONFIG_CGROUP_BPF" not in v1
    assert "CONFIG_CGROUP_BPF" in v2 and "CONFIG_CGROUP_DEVICE" not in v2


def test_either_way_to_keep_devices_away_will_do() -> None:
    for without, expected in (
        ("CGROUP_DEVICE", []),
        ("CGROUP_BPF", []),
        ("CGROUP_DEVICE CGROUP_BPF", ["CONFIG_CGROUP_DEVICE", "CONFIG_CGROUP_BPF"]),
    ):
        found = kconfig.parse(text((6, 1), without=without), "config")
        groups = judge.Judge(found, (6, 1), 0).groups()
        missing = [
            line.name for group in groups for line in group.all_lines() if line.needed and not line.good
        ]
        assert missing == expected


@pytest.mark.parametrize("instead", ["FUSE_FS", "BTRFS_FS"])
def test_another_storage_driver_will_do(instead: str) -> None:
    def missing(more: str) -> list[str]:
        found = kconfig.parse(text((6, 1), without="OVERLAY_FS", more=more), "config")
        groups = judge.Judge(found, (6, 1), 0).groups()
        return [line.name for group in groups for line in group.all_lines() if line.needed and not line.good]

    assert missing("") == ["CONFIG_OVERLAY_FS"]
    assert missing(instead) == []


def test_all_the_tutorial_shows_is_in_the_tables() -> None:
    shown_there = (
        "NAMESPACES NET_NS PID_NS IPC_NS UTS_NS CGROUPS CGROUP_CPUACCT CGROUP_DEVICE CGROUP_FREEZER "
        "CGROUP_SCHED CPUSETS MEMCG KEYS VETH BRIDGE BRIDGE_NETFILTER NF_NAT_IPV4 IP_NF_FILTER "
        "IP_NF_TARGET_MASQUERADE NETFILTER_XT_MATCH_ADDRTYPE NETFILTER_XT_MATCH_CONNTRACK "
        "NETFILTER_XT_MATCH_IPVS IP_NF_NAT NF_NAT NF_NAT_NEEDED POSIX_MQUEUE DEVPTS_MULTIPLE_INSTANCES "
        "USER_NS SECCOMP CGROUP_PIDS MEMCG_SWAP MEMCG_SWAP_ENABLED MEMCG_KMEM BLK_CGROUP "
        "BLK_DEV_THROTTLING IOSCHED_CFQ CFQ_GROUP_IOSCHED CGROUP_PERF CGROUP_HUGETLB NET_CLS_CGROUP "
        "CGROUP_NET_PRIO CFS_BANDWIDTH FAIR_GROUP_SCHED RT_GROUP_SCHED IP_NF_TARGET_REDIRECT IP_VS "
        "IP_VS_NFCT IP_VS_PROTO_TCP IP_VS_PROTO_UDP IP_VS_RR EXT4_FS EXT4_FS_POSIX_ACL EXT4_FS_SECURITY "
        "VXLAN BRIDGE_VLAN_FILTERING CRYPTO CRYPTO_AEAD CRYPTO_GCM CRYPTO_SEQIV CRYPTO_GHASH XFRM "
        "XFRM_USER XFRM_ALGO INET_ESP INET_XFRM_MODE_TRANSPORT IPVLAN MACVLAN DUMMY NF_NAT_FTP "
        "NF_CONNTRACK_FTP NF_NAT_TFTP NF_CONNTRACK_TFTP AUFS_FS BTRFS_FS BTRFS_FS_POSIX_ACL BLK_DEV_DM "
        "DM_THIN_PROVISIONING OVERLAY_FS "
    ).split()
    listed = {
        option.name
        for option in (
            *(*tables.GENERAL, *tables.FIREWALL, *tables.OPTIONAL, tables.SWAP, tables.SWAP_ENABLED),
            *(*tables.OPTIONAL_REST, *tables.EXT3, *tables.EXT4),
        )
    } | {
        option.name
        for driver in (*tables.NETWORK_DRIVERS, *tables.STORAGE_DRIVERS)
        for option in (*driver.options, *driver.extra)
    }
    assert set(shown_there) <= listed


def test_vsyscall() -> None:
    def states(option: str) -> list[tuple[str, bool]]:
        found = kconfig.parse(text((6, 1), more=option), "config")
        groups = judge.Judge(found, (6, 1), 0).groups()
        return [
            (line.name, line.good)
            for group in groups
            for line in group.all_lines()
            if "VSYSCALL" in line.name
        ]

    assert states("LEGACY_VSYSCALL_XONLY") == [("CONFIG_LEGACY_VSYSCALL_XONLY", True)]
    assert states("LEGACY_VSYSCALL_NATIVE") == [("CONFIG_LEGACY_VSYSCALL_NATIVE", False)]
    assert states("") == []


def test_json_says_the_same(tmp_path: Path) -> None:
    file = tmp_path / ".config"
    file.write_text(text((6, 18), without="BRIDGE VETH"))
    code, said = shown("--config", str(file), "--json")
    report = json.loads(said)
    assert code == 1 and report["Fit"] is False
    assert report["Missing"] == ["CONFIG_VETH", "CONFIG_BRIDGE"]
    assert (report["Kernel"], report["KernelAssumed"], report["Tried"]) == ("6.18", False, False)
    assert report["Trials"] == []
    assert [section["Title"] for section in report["Sections"]] == [
        "Generally Necessary",
        "Optional Features",
    ]


def test_a_file_that_does_not_tell_its_version(tmp_path: Path) -> None:
    file = tmp_path / "plain"
    file.write_text("CONFIG_VETH=y\n")
    code, said = shown("--config", str(file))
    assert code == 1 and "does not say which kernel it is of" in said
    (tmp_path / "config-5.4.0-1").write_text("CONFIG_VETH=y\n")
    found = kconfig.read(str(tmp_path / "config-5.4.0-1"))
    assert found.version == (5, 4)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"no configuration", "no kernel configuration"), (b"\x1f\x8bx" * 9, "damaged")],
)
def test_what_is_no_configuration(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_bytes(content)
    code, said = shown("--config", str(file))
    assert code == 125 and words in said and "Traceback" not in said


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.gz"
    file.write_bytes(gzip.compress(b"#" * (64 << 20), 1))
    code, said = shown("--config", str(file))
    assert code == 125 and "too large" in said


def test_refused_by_name() -> None:
    assert shown("--config", "x", "--data-root", "y")[0] == 125
    done = subprocess.run(
        [sys.executable, "-m", "sampan.cli", "-H", "unix:///nowhere", "doctor"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 125 and "--host" in done.stderr


def test_colours_only_on_a_terminal(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(text((6, 18)))

    def on_a_terminal(**environment: str) -> bytes:
        pid, fd = pty.fork()
        if pid == 0:
            words = [sys.executable, "-m", "sampan.doctor", "--config", str(file)]
            os.execve(
                words[0], words, {**os.environ, "PYTHONPATH": str(SOURCE), "TERM": "xterm", **environment}
            )
        said = b""
        try:
            while piece := os.read(fd, 65536):
                said += piece
        except OSError:
            pass  # EIO: the other end is closed
        os.close(fd)
        os.waitpid(pid, 0)
        return said

    assert b"\033[32menabled\033[0m" in on_a_terminal(NO_COLOR="")
    assert b"\033" not in on_a_terminal(NO_COLOR="1")


@pytest.mark.parametrize(
    ("mountinfo", "state", "version"),
    [
        ("1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw", "cgroupv2", 2),
        (
            "1 0 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
            "2 0 0:1 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
            "properly mounted",
            1,
        ),
        (
            "1 0 0:1 / /cgroup rw - cgroup cgroup rw,cpu,cpuacct,cpuset,memory,devices,freezer",
            "single mountpoint!",
            1,
        ),
        ("1 0 0:1 / / rw - ext4 /dev/vda rw", "nonexistent", 0),
    ],
)
def test_cgroup_hierarchies(mountinfo: str, state: str, version: int) -> None:
    lines, found = machine.lines(mountinfo)
    assert (lines[0].name, lines[0].state, found) == ("cgroup hierarchy", state, version)


def test_hybrid_is_told() -> None:
    lines, _ = machine.lines(
        "1 0 0:1 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
        "2 0 0:1 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
    )
    assert "hybrid" in lines[0].rest


def test_limits(tmp_path: Path) -> None:
    keys = tmp_path / "proc/sys/kernel/keys"
    keys.mkdir(parents=True)
    (keys / "root_maxkeys").write_text("200\n")
    (line,) = judge.limits(tmp_path).lines
    assert (line.state, line.good) == ("200", False)
    assert "sysctl -w kernel.keys.root_maxkeys=" in line.notes[0]
