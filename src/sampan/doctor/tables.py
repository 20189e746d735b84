"""The kernel's options that matter for containers, as data, in the order of Docker's own check.

`until` is the first kernel that no longer has the option, `since` the first that has it; the reasons stand
beside them. `needed` is what Sampan cannot do without: its firewall is nf_tables, so that the options of
iptables are Docker's need alone. What is missing without being needed has a word on what does not work then.
"""

from __future__ import annotations

from sampan.dataclasses import dataclass

Version = tuple[int, int]
_NEVER: Version = (999, 0)


@dataclass(frozen=True, slots=True)
class Option:
    """One option, without `CONFIG_`.

    Attributes:
        cgroup: 1 or 2 for what only that version of control groups needs.
        without: what does not work where it is missing.
    """

    name: str
    needed: bool = False
    without: str = ""
    since: Version = (0, 0)
    until: Version = _NEVER
    cgroup: int = 0

    def concerns(self, version: Version, cgroup: int) -> bool:
        """Whether a kernel of this version has the option, and a machine with these cgroups a use for it.

        Args:
            cgroup: 0 where it is not known.
        """
        return self.since <= version < self.until and (not self.cgroup or cgroup in (0, self.cgroup))


@dataclass(frozen=True, slots=True)
class Driver:
    """The options of a network or storage driver.

    Attributes:
        extra: more of them, under a title of their own.
    """

    name: str
    options: tuple[Option, ...]
    extra_title: str = ""
    extra: tuple[Option, ...] = ()


def _all(names: str, without: str = "", *, needed: bool = False, cgroup: int = 0) -> tuple[Option, ...]:
    return tuple(Option(name, needed, without, cgroup=cgroup) for name in names.split())


PREFIX = "will not work: "
IPTABLES = "for the rules of iptables, which Docker needs; Sampan's are nf_tables"

GENERAL: tuple[Option, ...] = (
    *_all("NAMESPACES NET_NS PID_NS IPC_NS UTS_NS", "any container", needed=True),
    Option("CGROUPS", True, "any container"),
    Option("CGROUP_SCHED", False, "--cpu-shares and --cpus"),
    Option("KEYS", False, "a session keyring for each container"),
    *_all("VETH BRIDGE", "bridge networks; --network none and host will", needed=True),
    Option("BRIDGE_NETFILTER", False, "Docker's --icc=false; Sampan isolates the ports of its bridge"),
    *_all("IP_NF_FILTER IP_NF_MANGLE IP_NF_TARGET_MASQUERADE", IPTABLES),
    *_all("IP6_NF_FILTER IP6_NF_MANGLE IP6_NF_TARGET_MASQUERADE", IPTABLES),
    *_all("NETFILTER_XT_MATCH_ADDRTYPE NETFILTER_XT_MATCH_CONNTRACK NETFILTER_XT_MATCH_IPVS", IPTABLES),
    *_all("NETFILTER_XT_MARK IP_NF_RAW IP_NF_NAT", IPTABLES),
    Option("NF_NAT", True, "published ports, and connections from containers to other machines"),
    *_all("IP6_NF_RAW IP6_NF_NAT", IPTABLES),
    Option("POSIX_MQUEUE", True, "any container, for its /dev/mqueue"),
    *_all("CGROUP_FREEZER", "pause", cgroup=1),
    *_all("CGROUP_DEVICE", "keeping containers from devices", needed=True, cgroup=1),
    *_all("CPUSETS", "--cpuset-cpus and --cpuset-mems"),
    *_all("CGROUP_CPUACCT", "the processor time in stats", cgroup=1),
    Option("MEMCG", False, "--memory"),
    # Control groups v1 became options of their own, which are off by default.
    Option("MEMCG_V1", False, "--memory on cgroup v1", since=(6, 11), cgroup=1),
    Option("CPUSETS_V1", False, "--cpuset-cpus on cgroup v1", since=(6, 12), cgroup=1),
    # Each mount of devpts has been an instance of its own since.
    Option("DEVPTS_MULTIPLE_INSTANCES", True, "terminals of containers", until=(4, 7)),
    # nf_nat_ipv4 and nf_nat_ipv6 were merged into nf_nat.
    Option("NF_NAT_IPV4", True, "ports that are published", until=(5, 1)),
    # NF_NAT itself is asked for since.
    Option("NF_NAT_NEEDED", False, IPTABLES, until=(5, 2)),
    # Devices are kept away by programs (BPF_CGROUP_DEVICE) on cgroup v2.
    Option("CGROUP_BPF", True, "keeping containers from devices", since=(4, 15), cgroup=2),
)

FIREWALL: tuple[Option, ...] = (
    *_all(
        "NF_TABLES NF_TABLES_IPV4 NF_CONNTRACK NFT_CT NFT_NAT NFT_MASQ",
        "published ports, and connections from containers to other machines",
        needed=True,
    ),
    Option("NFT_FIB_IPV4", True, "published ports", since=(4, 10)),
    # The chain of type nat and masquerading were one module for each family before.
    *(Option(name, True, "NAT", until=(5, 1)) for name in ("NFT_CHAIN_NAT_IPV4", "NFT_MASQ_IPV4")),
    # What holds maps: an option for all kinds of them from then on, and always there since.
    Option("NF_TABLES_SET", True, "published ports", since=(4, 18), until=(5, 7)),
)

OPTIONAL: tuple[Option, ...] = (
    Option("USER_NS", False, "user namespaces inside of containers, id-mapped mounts"),
    *_all("SECCOMP SECCOMP_FILTER", "keeping containers from dangerous system calls", needed=True),
    # On v2 too: there it is a controller like any other.
    Option("CGROUP_PIDS", False, "--pids-limit"),
    Option("CGROUP_HUGETLB", False, "limits on huge pages"),
)

# The swap lines, with what the kernel says itself, are made in `judge`.
SWAP = Option("MEMCG_SWAP", False, "--memory-swap", until=(6, 1))
SWAP_ENABLED = Option("MEMCG_SWAP_ENABLED", False, "", until=(5, 8))

OPTIONAL_REST: tuple[Option, ...] = (
    *_all("NF_TABLES_BRIDGE NFT_LOG NETFILTER_NETLINK_LOG NFT_LIMIT NFT_REJECT NFT_REJECT_IPV4", "--egress"),
    *_all("NFT_FIB_IPV6 NFT_REJECT_IPV6", "--egress in networks with IPv6"),
    Option("NF_CT_NETLINK", False, "changing where a running container may connect to"),
    # Accounting of the kernel's memory came with MEMCG from then on.
    Option("MEMCG_KMEM", False, "--kernel-memory", until=(4, 5)),
    Option("RESOURCE_COUNTERS", False, "--memory", until=(3, 19)),
    Option("BLK_CGROUP", False, "--blkio-weight and --device-read-bps"),
    Option("BLK_DEV_THROTTLING", False, "--device-read-bps and its like"),
    # The scheduler CFQ is gone; BFQ is the one with weights.
    *(Option(name, False, "--blkio-weight", until=(5, 0)) for name in ("IOSCHED_CFQ", "CFQ_GROUP_IOSCHED")),
    *(Option(name, False, "--blkio-weight", since=(5, 0)) for name in ("IOSCHED_BFQ", "BFQ_GROUP_IOSCHED")),
    Option("CGROUP_PERF", False, "perf by cgroup"),
    Option("NET_CLS_CGROUP", False, "marking packets by cgroup", cgroup=1),
    Option("NETPRIO_CGROUP", False, "priorities of packets by cgroup", until=(3, 14), cgroup=1),
    Option("CGROUP_NET_PRIO", False, "priorities of packets by cgroup", since=(3, 14), cgroup=1),
    Option("CFS_BANDWIDTH", False, "--cpus and --cpu-quota"),
    Option("FAIR_GROUP_SCHED", False, "--cpu-shares"),
    Option("RT_GROUP_SCHED", False, "--cpu-rt-runtime", cgroup=1),
    Option("IP_NF_TARGET_REDIRECT", False, "Swarm's routing"),
    *_all("IP_VS IP_VS_NFCT IP_VS_PROTO_TCP IP_VS_PROTO_UDP IP_VS_RR", "Swarm's services"),
    *_all("SECURITY_SELINUX SECURITY_APPARMOR", "confinement by this security module"),
    Option("TIME_NS", False, "time namespaces", since=(5, 6)),
    Option("FUSE_FS", False, "FUSE file systems inside of containers (--device /dev/fuse)"),
)

# Ext3 is served by ext4's code since 4.3, and its own attributes are no option any more.
EXT3: tuple[Option, ...] = tuple(
    Option(name, False, "layers on ext3", until=until)
    for name, until in (
        ("EXT3_FS", (6, 18)), ("EXT3_FS_XATTR", (4, 3)), ("EXT3_FS_POSIX_ACL", (6, 18)),
        ("EXT3_FS_SECURITY", (6, 18)),
    )
)  # fmt: skip
EXT4 = _all("EXT4_FS EXT4_FS_POSIX_ACL EXT4_FS_SECURITY", "layers on ext4")

NETWORK_DRIVERS: tuple[Driver, ...] = (
    Driver(
        "overlay",
        _all("VXLAN BRIDGE_VLAN_FILTERING"),
        "Optional (for encrypted networks)",
        (
            *_all("CRYPTO CRYPTO_AEAD CRYPTO_GCM CRYPTO_SEQIV CRYPTO_GHASH XFRM XFRM_USER XFRM_ALGO"),
            *_all("INET_ESP NETFILTER_XT_MATCH_BPF"),
            # The modes of xfrm are always there since.
            Option("INET_XFRM_MODE_TRANSPORT", until=(5, 2)),
        ),
    ),
    Driver("ipvlan", _all("IPVLAN")),
    Driver("macvlan", _all("MACVLAN DUMMY")),
    Driver(
        "ftp,tftp client in container",
        _all("NF_NAT_FTP NF_CONNTRACK_FTP NF_NAT_TFTP NF_CONNTRACK_TFTP"),
    ),
)

STORAGE_DRIVERS: tuple[Driver, ...] = (
    Driver("aufs", _all("AUFS_FS")),
    Driver("btrfs", _all("BTRFS_FS BTRFS_FS_POSIX_ACL")),
    Driver("devicemapper", _all("BLK_DEV_DM DM_THIN_PROVISIONING")),
    Driver("overlay", _all("OVERLAY_FS", "the storage driver overlay2", needed=True)),
)
