"""What a kernel can lack, and the diagnosis: why it is not there, and the command or option that mends it.

The one source for the daemon's errors and for `sampan doctor`. Nothing here is on the way of a start; it is
asked once something was refused.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from functools import cache

from sampan.dataclasses import dataclass
from sampan.linux import kconfig, kernel, namespaces


@dataclass(frozen=True, slots=True)
class Feature:
    """A part of the kernel.

    Attributes:
        title: as the end of a sentence, "this kernel has no …".
        options: names without `CONFIG_`, all of which it takes.
        module: its name, where it can be one.
        since: the first kernel that has it.
    """

    title: str
    options: tuple[str, ...] = ()
    module: str = ""
    since: tuple[int, int] = (0, 0)


FEATURES: Mapping[str, Feature] = {
    "bridge": Feature("bridges", ("BRIDGE",), "bridge"),
    "veth": Feature("veth pairs", ("VETH",), "veth"),
    "macvlan": Feature("macvlan interfaces", ("MACVLAN",), "macvlan"),
    "ipvlan": Feature("ipvlan interfaces", ("IPVLAN",), "ipvlan"),
    "vlan": Feature("VLAN interfaces", ("VLAN_8021Q",), "8021q"),
    "overlay": Feature("overlay file system", ("OVERLAY_FS",), "overlay"),
    "fuse": Feature("FUSE", ("FUSE_FS",), "fuse"),
    "nf_tables": Feature("nf_tables", ("NF_TABLES", "NF_TABLES_IPV4"), "nf_tables"),
    "nft_ct": Feature("connection tracking in nf_tables", ("NF_CONNTRACK", "NFT_CT"), "nft_ct"),
    "nft_nat": Feature("address translation in nf_tables", ("NF_NAT", "NFT_NAT"), "nft_nat"),
    "nft_masq": Feature("masquerading in nf_tables", ("NF_NAT", "NFT_MASQ"), "nft_masq"),
    "nft_fib": Feature("route lookups in nf_tables", ("NFT_FIB_IPV4",), "nft_fib_ipv4"),
    "nf_tables_bridge": Feature("nf_tables for bridges", ("NF_TABLES_BRIDGE",)),
    "nft_log": Feature("logging in nf_tables", ("NFT_LOG", "NETFILTER_NETLINK_LOG"), "nft_log"),
    "nft_reject": Feature(
        "refusals with an answer in nf_tables", ("NFT_REJECT", "NFT_REJECT_IPV4"), "nft_reject_ipv4", (5, 9)
    ),
    "nft_fib_ipv6": Feature("route lookups of IPv6 in nf_tables", ("NFT_FIB_IPV6",), "nft_fib_ipv6"),
    "nft_reject_ipv6": Feature(
        "refusals of IPv6 with an answer in nf_tables", ("NFT_REJECT_IPV6",), "nft_reject_ipv6", (5, 9)
    ),
    "ctnetlink": Feature("way to forget connections", ("NF_CT_NETLINK",), "nf_conntrack_netlink"),
    "cgroups": Feature("control groups", ("CGROUPS",)),
    "cgroup_bpf": Feature("device filters for cgroup v2", ("CGROUP_BPF", "BPF_SYSCALL"), since=(4, 15)),
    "cgroup_devices": Feature("device lists for cgroup v1", ("CGROUP_DEVICE",)),
    "freezer": Feature("freezer for cgroup v1", ("CGROUP_FREEZER",)),
    "memory": Feature("memory limits", ("MEMCG",)),
    "memory_v1": Feature("memory limits for cgroup v1", ("MEMCG", "MEMCG_V1"), since=(6, 11)),
    "cpu": Feature("processor shares", ("CGROUP_SCHED", "FAIR_GROUP_SCHED")),
    "cpu_quota": Feature("processor quotas", ("CGROUP_SCHED", "CFS_BANDWIDTH")),
    "cpuset": Feature("sets of processors", ("CPUSETS",)),
    "pids": Feature("limits on the number of processes", ("CGROUP_PIDS",)),
    "io": Feature("limits on block devices", ("BLK_CGROUP", "BLK_DEV_THROTTLING")),
    "seccomp": Feature("system call filters", ("SECCOMP", "SECCOMP_FILTER")),
    "keys": Feature("keyrings", ("KEYS",)),
    "mqueue": Feature("POSIX message queues", ("POSIX_MQUEUE",)),
    "tmpfs": Feature("tmpfs", ("TMPFS", "SHMEM")),
    "memfd": Feature("files in memory", ("MEMFD_CREATE",)),
    "openat2": Feature("openat2", since=(5, 6)),
    "clone3": Feature("clone3", since=(5, 3)),
    "pidfd_open": Feature("pidfd_open", since=(5, 3)),
    "fsopen": Feature("mounts by descriptor", since=(5, 2)),
    "mount_setattr": Feature("mount_setattr", since=(5, 12)),
    "idmap": Feature("id-mapped mounts", ("USER_NS",), since=(5, 12)),
    "ns_mount": Feature("mount namespaces", ("NAMESPACES",)),
    "ns_uts": Feature("UTS namespaces", ("UTS_NS",)),
    "ns_ipc": Feature("IPC namespaces", ("IPC_NS",)),
    "ns_pid": Feature("PID namespaces", ("PID_NS",)),
    "ns_network": Feature("network namespaces", ("NET_NS",)),
    "ns_cgroup": Feature("cgroup namespaces", ("CGROUPS",), since=(4, 6)),
    "ns_user": Feature("user namespaces", ("USER_NS",)),
    "ns_time": Feature("time namespaces", ("TIME_NS",), since=(5, 6)),
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """What is known of a kernel.

    Attributes:
        release: as `uname -r` says it.
        config: its configuration, where that was found.
        modules: the directory of its modules.
        loaded: the directory with one entry for each module that is there.
    """

    release: str
    version: tuple[int, int]
    config: kconfig.Config | None
    modules: str
    loaded: str = "/sys/module"


@cache
def running() -> Kernel:
    """The running one, looked up once."""
    release = os.uname().release
    return Kernel(release, kernel.release(), kconfig.find(release), f"/lib/modules/{release}")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why something is not there, and what to do about it.

    Attributes:
        present: the kernel has it, but does not give it to this process.
    """

    cause: str
    remedy: str
    present: bool = False


PRIVILEGED = (
    "run as root and with all capabilities; if this is a container or a sandbox itself, it must be a "
    "privileged one whose seccomp profile allows it"
)


def diagnose(name: str, machine: Kernel | None = None) -> Diagnosis:
    """The diagnosis of a feature of the table that was refused."""
    feature, machine = FEATURES[name], machine or running()
    if machine.version < feature.since:
        wanted = ".".join(map(str, feature.since))
        return Diagnosis(f"Linux {machine.release} is too old", f"boot Linux {wanted} or newer")
    names = " and ".join(f"CONFIG_{option}" for option in feature.options)
    config = machine.config
    if config is not None and config.path and feature.options:
        missing = [f"CONFIG_{option}" for option in feature.options if not config.has(option)]
        if missing:
            return Diagnosis(
                f"it was built without {' and '.join(missing)} ({config.path})",
                f"boot your distribution's own kernel, or build this one with {'=y, '.join(missing)}=y",
            )
    if feature.module and (found := _module(feature.module, machine, config, feature.options)):
        return found
    if config is not None or not feature.options:
        has = f" ({names})" if names else ""
        return Diagnosis(
            f"the kernel has it{has}, but it is refused here",
            PRIVILEGED,
            present=True,
        )
    return Diagnosis(
        f"it takes {names}, and this kernel's configuration is not to be had",
        f"`modprobe {feature.module}`, or boot a kernel with {names}"
        if feature.module
        else f"boot a kernel with {names}",
    )


def _module(
    name: str, machine: Kernel, config: kconfig.Config | None, options: tuple[str, ...]
) -> Diagnosis | None:
    """What keeps a module from being there; None when it is not the module's fault."""
    if os.path.isdir(f"{machine.loaded}/{name}"):
        return None
    if config is not None and not any(config.is_module(option) for option in options):
        return None
    if not os.path.isdir(machine.modules):
        if config is None:
            return None
        return Diagnosis(
            f"its module {name} cannot be loaded, as {machine.modules} is not there",
            "if the kernel was upgraded, boot the new one; if this is a container itself, "
            f"`modprobe {name}` on its host",
        )
    if not _listed(f"{machine.modules}/modules.dep", name):
        if config is None:
            return None
        return Diagnosis(
            f"its module {name} is not in {machine.modules}",
            "install the package with all of this kernel's modules (Ubuntu: "
            f"linux-modules-extra-{machine.release})",
        )
    return Diagnosis(
        f"its module {name} is not loaded",
        f"`modprobe {name}`, and at each boot: `echo {name} >> /etc/modules-load.d/sampan.conf`",
    )


def _listed(path: str, name: str) -> bool:
    """Whether modules.dep(5) has a module; the files' names have - or _ alike."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return any(
                line.partition(":")[0].rpartition("/")[2].partition(".")[0].replace("-", "_") == name
                for line in file
            )
    except OSError:
        return False


def lacking(name: str, machine: Kernel | None = None) -> str:
    """One line for an error: what is not there, why, and what to do."""
    found = diagnose(name, machine)
    return f"this kernel has no {FEATURES[name].title}: {found.cause}; {found.remedy}"


def namespace_refusal(kinds: Iterable[str], number: int) -> Diagnosis | None:
    """Why the kernel refused to make namespaces (clone(2), namespaces(7)); None for another reason.

    Args:
        kinds: OCI names of those that were asked for.
        number: the errno.
    """
    for kind in kinds:
        file = namespaces.KINDS[kind][0]
        if number == errno.EINVAL and not os.path.exists(f"/proc/self/ns/{file}"):
            return diagnose(f"ns_{kind}")
        switch = f"/proc/sys/user/max_{file}_namespaces"
        if number in (errno.ENOSPC, errno.EUSERS) and _number(switch) == 0:
            return Diagnosis(f"{switch} is 0", f"`sysctl -w user.max_{file}_namespaces=10000`")
    if number in (errno.ENOSPC, errno.EUSERS):
        return Diagnosis(
            "as many namespaces as are allowed are in use",
            "raise the limits /proc/sys/user/max_*_namespaces (sysctl user.max_net_namespaces and so on)",
        )
    return None


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="utf-8") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
