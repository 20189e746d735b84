"""Every field of `POST /containers/create`: a value that is not its default, and what comes of it.

`tests/clients/test_create_fields.py` sends each and looks; `tools/compatibility.py` writes the same table for
people. A field of Docker's description that is missing here fails `tests/unit/api/test_api_compatibility.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True)
class Inside:
    """In effect: a shell in the container sees it."""

    script: str
    expected: str


@dataclass(frozen=True)
class Cgroup:
    """In effect: a file of the container's cgroup has the value, on v1 or v2."""

    controller: str
    v1: tuple[str, str]
    v2: tuple[str, str]


@dataclass(frozen=True)
class Shown:
    """Kept for clients: inspect gives it back, and there is nothing else for an engine to do."""

    why: str = ""


@dataclass(frozen=True)
class Passed:
    """Let pass without a meaning, as Docker does."""

    why: str


@dataclass(frozen=True)
class Elsewhere:
    """In effect: another test, `file::function` below tests/, looks closer than a table can."""

    test: str


@dataclass(frozen=True)
class Refused:
    """Refused by name."""

    status: int
    words: str


@dataclass(frozen=True)
class Warned:
    """Dropped, and said so in the answer's warnings."""

    words: str


Outcome = Inside | Cgroup | Shown | Passed | Elsewhere | Refused | Warned


@dataclass(frozen=True)
class Field:
    """A member of the body."""

    path: str
    value: Any
    outcome: Outcome
    beside: dict[str, Any] | None = None  # what must be set with it, merged into the body


def _host(name: str, value: Any, outcome: Outcome, **beside: Any) -> Field:
    return Field(f"HostConfig.{name}", value, outcome, {"HostConfig": beside} if beside else None)


def _mount(name: str, value: Any, outcome: Outcome, **mount: Any) -> Field:
    whole: dict[str, Any] = {"Type": "volume", "Target": "/m", **mount}
    return Field(f"HostConfig.Mounts[].{name}", value, outcome, {"HostConfig": {"Mounts": [whole]}})


def _endpoint(name: str, value: Any, outcome: Outcome) -> Field:
    return Field(f"NetworkingConfig.EndpointsConfig.*.{name}", value, outcome)


WINDOWS = "HostConfig.{}: unknown field"
ISOLATION = "Invalid isolation: \"hyperv\" - linux only supports 'default'"
ENDPOINT = "invalid endpoint settings:\n"
KERNEL_MEMORY = "Your kernel does not support kernel memory limits. Limitation discarded."

FIELDS: tuple[Field, ...] = (
    Field("Hostname", "ahoy", Inside("hostname", "ahoy")),
    Field("Domainname", "example.org", Inside("cat /proc/sys/kernel/domainname", "example.org")),
    Field("User", "7:8", Inside("id -u; id -g", "7\n8")),
    Field("AttachStdin", True, Shown("clients attach by a request of their own")),
    Field("AttachStdout", True, Shown("clients attach by a request of their own")),
    Field("AttachStderr", True, Shown("clients attach by a request of their own")),
    Field("ExposedPorts", {"81/udp": {}}, Shown("also in the list of containers")),
    Field("Tty", True, Inside("test -t 1 && echo terminal", "terminal")),
    Field("OpenStdin", True, Elsewhere("clients/test_run_basics.py::test_input_goes_in_and_its_end_too")),
    Field("StdinOnce", True, Elsewhere("clients/test_run_basics.py::test_input_goes_in_and_its_end_too")),
    Field("Env", ["A=b"], Inside("echo $A", "b")),
    Field("Cmd", ["sh", "-c", "echo ahoy"], Inside("", "ahoy")),
    Field(
        "Healthcheck",
        {"Test": ["CMD", "true"]},
        Elsewhere("clients/test_health.py::test_healthy_then_unhealthy_then_healthy"),
    ),
    Field(
        "Healthcheck.Test",
        ["CMD", "true"],
        Elsewhere("clients/test_health.py::test_healthy_then_unhealthy_then_healthy"),
    ),
    Field(
        "Healthcheck.Interval",
        10**9,
        Elsewhere("clients/test_health.py::test_healthy_then_unhealthy_then_healthy"),
    ),
    Field("Healthcheck.Timeout", 10**9, Shown()),
    Field("Healthcheck.Retries", 2, Shown()),
    Field("Healthcheck.StartPeriod", 10**9, Shown()),
    Field("Healthcheck.StartInterval", 10**9, Shown()),
    Field("ArgsEscaped", True, Shown("of Windows; kept, as dockerd does on Linux")),
    Field("Image", "busybox", Inside("echo here", "here")),
    Field("Volumes", {"/v": {}}, Inside("grep -c ' /v ' /proc/mounts", "1")),
    Field("WorkingDir", "/w", Inside("pwd", "/w")),
    Field("Entrypoint", ["echo", "ahoy"], Inside("", "ahoy"), {"Cmd": None}),
    Field("NetworkDisabled", True, Inside("ls /sys/class/net", "lo")),
    Field("MacAddress", "02:42:00:00:00:07", Inside("cat /sys/class/net/eth0/address", "02:42:00:00:00:07")),
    Field("OnBuild", ["RUN true"], Shown("of use to builders")),
    Field("Labels", {"a": "b"}, Shown()),
    Field("StopSignal", "SIGINT", Elsewhere("clients/test_lifecycle.py::test_stop_signal")),
    Field("StopTimeout", 3, Shown()),
    Field("Shell", ["ash", "-c"], Shown("of use to builders and to CMD-SHELL of health checks")),
    _host("CpuShares", 512, Cgroup("cpu", ("cpu.shares", "512"), ("cpu.weight", "20"))),
    _host(
        "Memory",
        64 * MIB,
        Cgroup("memory", ("memory.limit_in_bytes", str(64 * MIB)), ("memory.max", str(64 * MIB))),
    ),
    _host(
        "CgroupParent",
        "PARENT",
        Inside("cut -d: -f3 /proc/1/cgroup | sort -u | grep -c PARENT", "1"),
        CgroupnsMode="host",
    ),
    _host("BlkioWeight", 300, Cgroup("blkio", ("blkio.weight", "300"), ("io.weight", "default 2929"))),
    _host(
        "BlkioWeightDevice",
        [{"Path": "DISK", "Weight": 200}],
        Cgroup("blkio", ("blkio.weight_device", "DISK 200"), ("io.weight", "DISK 1930")),
    ),
    _host(
        "BlkioDeviceReadBps",
        [{"Path": "DISK", "Rate": MIB}],
        Cgroup(
            "blkio",
            ("blkio.throttle.read_bps_device", f"DISK {MIB}"),
            ("io.max", f"DISK rbps={MIB} wbps=max riops=max wiops=max"),
        ),
    ),
    _host(
        "BlkioDeviceWriteBps",
        [{"Path": "DISK", "Rate": MIB}],
        Cgroup(
            "blkio",
            ("blkio.throttle.write_bps_device", f"DISK {MIB}"),
            ("io.max", f"DISK rbps=max wbps={MIB} riops=max wiops=max"),
        ),
    ),
    _host(
        "BlkioDeviceReadIOps",
        [{"Path": "DISK", "Rate": 99}],
        Cgroup(
            "blkio",
            ("blkio.throttle.read_iops_device", "DISK 99"),
            ("io.max", "DISK rbps=max wbps=max riops=99 wiops=max"),
        ),
    ),
    _host(
        "BlkioDeviceWriteIOps",
        [{"Path": "DISK", "Rate": 99}],
        Cgroup(
            "blkio",
            ("blkio.throttle.write_iops_device", "DISK 99"),
            ("io.max", "DISK rbps=max wbps=max riops=max wiops=99"),
        ),
    ),
    _host("CpuPeriod", 50000, Cgroup("cpu", ("cpu.cfs_period_us", "50000"), ("cpu.max", "max 50000"))),
    _host("CpuQuota", 30000, Cgroup("cpu", ("cpu.cfs_quota_us", "30000"), ("cpu.max", "30000 100000"))),
    _host("CpuRealtimePeriod", 500000, Cgroup("cpu", ("cpu.rt_period_us", "500000"), ("", ""))),
    _host("CpuRealtimeRuntime", 1000, Cgroup("cpu", ("cpu.rt_runtime_us", "1000"), ("", ""))),
    _host("CpusetCpus", "0", Cgroup("cpuset", ("cpuset.cpus", "0"), ("cpuset.cpus", "0"))),
    _host("CpusetMems", "0", Cgroup("cpuset", ("cpuset.mems", "0"), ("cpuset.mems", "0"))),
    _host(
        "Devices",
        [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nothing", "CgroupPermissions": "rw"}],
        Inside("test -c /dev/nothing && echo yes", "yes"),
    ),
    _host(
        "DeviceCgroupRules",
        ["b NUMBERS r"],
        Inside(
            "mknod /d b $(echo NUMBERS | tr : ' ') && dd if=/d of=/dev/null count=1 2>/dev/null && echo open",
            "open",
        ),
    ),
    _host(
        "DeviceRequests",
        [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}],
        Refused(501, "device requests (--gpus): not offered yet"),
    ),
    _host("KernelMemoryTCP", 64 * MIB, Warned(KERNEL_MEMORY)),
    _host(
        "MemoryReservation",
        32 * MIB,
        Cgroup("memory", ("memory.soft_limit_in_bytes", str(32 * MIB)), ("memory.low", str(32 * MIB))),
    ),
    _host(
        "MemorySwap",
        96 * MIB,
        Cgroup("memory", ("memory.memsw.limit_in_bytes", str(96 * MIB)), ("memory.swap.max", str(32 * MIB))),
        Memory=64 * MIB,
    ),
    _host("MemorySwappiness", 7, Cgroup("memory", ("memory.swappiness", "7"), ("", ""))),
    _host("NanoCpus", 500_000_000, Cgroup("cpu", ("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000"))),
    _host(
        "OomKillDisable",
        True,
        Cgroup("memory", ("memory.oom_control", "oom_kill_disable 1"), ("", "")),
        Memory=64 * MIB,
    ),
    _host("Init", True, Inside("cat /proc/1/comm", "docker-init")),
    _host("PidsLimit", 17, Cgroup("pids", ("pids.max", "17"), ("pids.max", "17"))),
    _host(
        "Ulimits",
        [{"Name": "nofile", "Soft": 123, "Hard": 456}],
        Inside("ulimit -Sn; ulimit -Hn", "123\n456"),
    ),
    _host("CpuCount", 1, Refused(400, WINDOWS.format("CpuCount"))),
    _host("CpuPercent", 10, Refused(400, WINDOWS.format("CpuPercent"))),
    _host("IOMaximumIOps", 10, Refused(400, WINDOWS.format("IOMaximumIOps"))),
    _host("IOMaximumBandwidth", 10, Refused(400, WINDOWS.format("IOMaximumBandwidth"))),
    _host("Binds", ["/etc:/bound:ro"], Inside("test -f /bound/passwd && echo yes", "yes")),
    _host("ContainerIDFile", "/tmp/id", Shown("the client writes the file")),
    _host("LogConfig", {"Type": "none"}, Shown()),
    _host("LogConfig.Type", "none", Shown()),
    _host("LogConfig.Config", {"max-size": "10m"}, Shown(), LogConfig={"Type": "json-file"}),
    _host("NetworkMode", "none", Inside("ls /sys/class/net", "lo")),
    _host(
        "PortBindings",
        {"80/tcp": [{"HostIp": "", "HostPort": "8099"}]},
        Elsewhere("clients/test_publish.py::test_from_the_host_and_from_another_machine"),
    ),
    _host(
        "RestartPolicy",
        {"Name": "on-failure", "MaximumRetryCount": 1},
        Elsewhere("clients/test_restart_policies.py::test_a_crash_is_restarted"),
    ),
    _host(
        "AutoRemove",
        True,
        Elsewhere("clients/test_run_basics.py::test_rm_leaves_nothing_and_its_absence_leaves_it"),
    ),
    _host(
        "VolumeDriver",
        "nfs",
        Refused(404, 'create v: error looking up volume plugin nfs: plugin "nfs" not found'),
        Binds=["v:/m"],
    ),
    _host("VolumesFrom", ["OTHER"], Inside("grep -c ' /other ' /proc/mounts", "1")),
    _host("Mounts", [{"Type": "tmpfs", "Target": "/m"}], Inside("grep -c '^tmpfs /m ' /proc/mounts", "1")),
    Field("HostConfig.ConsoleSize", [24, 90], Inside("stty size", "24 90"), {"Tty": True}),
    _host("Annotations", {"a": "b"}, Shown("handed to the runtime in config.json")),
    _host(
        "CapAdd",
        ["NET_ADMIN"],
        Inside("ip link set lo mtu 1400 && cat /sys/class/net/lo/mtu", "1400"),
        NetworkMode="none",
    ),
    _host("CapDrop", ["ALL"], Inside("grep CapEff /proc/self/status | cut -f2", "0000000000000000")),
    _host("CgroupnsMode", "host", Elsewhere("clients/test_run_limits.py::test_cgroup_namespace")),
    _host("Dns", ["192.0.2.53"], Inside("grep ^nameserver /etc/resolv.conf", "nameserver 192.0.2.53")),
    _host("DnsOptions", ["ndots:7"], Inside("grep -o ndots:7 /etc/resolv.conf", "ndots:7")),
    _host("DnsSearch", ["example.org"], Inside("grep ^search /etc/resolv.conf", "search example.org")),
    _host("ExtraHosts", ["ahoy:192.0.2.7"], Inside("grep ahoy /etc/hosts", "192.0.2.7\tahoy")),
    _host("GroupAdd", ["777"], Inside("id -G | grep -o 777", "777")),
    _host("IpcMode", "none", Inside("test -d /dev/shm && grep /dev/shm /proc/mounts || echo none", "none")),
    _host("Cgroup", "container:x", Refused(501, "the field Cgroup: not offered yet")),
    _host("Links", ["a:b"], Refused(400, "could not get container for a: No such container: a")),
    _host("OomScoreAdj", 321, Inside("cat /proc/self/oom_score_adj", "321")),
    _host("PidMode", "host", Inside("test $$ -gt 1 && echo host", "host")),
    _host("Privileged", True, Elsewhere("clients/test_run_limits.py::test_privileged")),
    _host("PublishAllPorts", True, Elsewhere("clients/test_publish.py::test_ranges_and_all_exposed")),
    _host("ReadonlyRootfs", True, Inside("touch /x 2>/dev/null || echo refused", "refused")),
    _host("SecurityOpt", ["no-new-privileges"], Inside("grep NoNewPrivs /proc/self/status | cut -f2", "1")),
    _host(
        "StorageOpt",
        {"size": "1G"},
        Elsewhere("integration/daemon/test_daemon_storage.py::test_a_limit_on_a_containers_files"),
    ),
    _host("Tmpfs", {"/t": "size=1m"}, Inside("grep '/t ' /proc/mounts | grep -o size=1024k", "size=1024k")),
    _host("UTSMode", "host", Inside("readlink /proc/self/ns/uts", "UTS")),
    _host("UsernsMode", "host", Inside("readlink /proc/self/ns/user", "USER")),
    _host("ShmSize", MIB, Inside("grep /dev/shm /proc/mounts | grep -o size=1024k", "size=1024k")),
    _host(
        "Sysctls", {"net.ipv4.ip_default_ttl": "77"}, Inside("cat /proc/sys/net/ipv4/ip_default_ttl", "77")
    ),
    _host("Runtime", "nothing", Refused(400, "unknown or invalid runtime name: nothing")),
    _host("Isolation", "hyperv", Refused(400, ISOLATION)),
    _host("MaskedPaths", ["/etc/passwd"], Inside("wc -c < /etc/passwd", "0")),
    _host("ReadonlyPaths", ["/etc"], Inside("touch /etc/x 2>/dev/null || echo refused", "refused")),
    _mount("Target", "/elsewhere", Inside("grep -c ' /elsewhere ' /proc/mounts", "1")),
    _mount("Source", "/etc", Inside("test -f /m/passwd && echo yes", "yes"), Type="bind"),
    _mount("Type", "tmpfs", Inside("grep -c '^tmpfs /m ' /proc/mounts", "1")),
    _mount("ReadOnly", True, Inside("touch /m/x 2>/dev/null || echo refused", "refused"), Type="tmpfs"),
    _mount("Consistency", "cached", Shown("of Docker Desktop; dockerd on Linux keeps it too")),
    _mount(
        "BindOptions.Propagation",
        "rslave",
        Elsewhere("clients/test_run_mounts.py::test_propagation"),
        Type="bind",
        Source="/etc",
    ),
    _mount(
        "BindOptions.NonRecursive",
        True,
        Inside("grep -c ' /m/' /proc/mounts", "0"),
        Type="bind",
        Source="/sys",
    ),
    _mount(
        "BindOptions.CreateMountpoint",
        True,
        Inside("test -d /m && echo yes", "yes"),
        Type="bind",
        Source="MISSING",
    ),
    _mount(
        "BindOptions.ReadOnlyNonRecursive",
        True,
        Inside("grep ' /m ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1", "ro"),
        Type="bind",
        Source="/sys",
        ReadOnly=True,
    ),
    _mount(
        "BindOptions.ReadOnlyForceRecursive",
        True,
        Inside("grep ' /m ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1", "ro"),
        Type="bind",
        Source="/etc",
        ReadOnly=True,
    ),
    _mount(
        "VolumeOptions.NoCopy",
        True,
        Inside("ls /etc/passwd 2>/dev/null || echo empty", "empty"),
        Target="/etc",
    ),
    _mount(
        "VolumeOptions.Labels",
        {"a": "b"},
        Elsewhere("clients/test_create_fields.py::test_labels_of_a_volume"),
    ),
    _mount(
        "VolumeOptions.DriverConfig",
        {"Name": "nfs"},
        Refused(404, 'create volume: error looking up volume plugin nfs: plugin "nfs" not found'),
    ),
    _mount(
        "VolumeOptions.Subpath",
        "a",
        Elsewhere("clients/test_mounts.py::test_part_of_a_volume"),
        Source="some-volume",
    ),
    _mount(
        "ImageOptions.Subpath",
        "etc",
        Elsewhere("clients/test_mounts.py::test_image_and_a_part_of_it"),
        Type="image",
        Source="busybox",
    ),
    _mount(
        "TmpfsOptions.SizeBytes",
        MIB,
        Inside("grep ' /m ' /proc/mounts | grep -o size=1024k", "size=1024k"),
        Type="tmpfs",
    ),
    _mount("TmpfsOptions.Mode", 0o700, Inside("stat -c %a /m", "700"), Type="tmpfs"),
    _mount(
        "TmpfsOptions.Options",
        [["noexec"]],
        Inside("grep ' /m ' /proc/mounts | grep -o noexec", "noexec"),
        Type="tmpfs",
    ),
    Field(
        "NetworkingConfig.EndpointsConfig",
        {"other": {}},
        Refused(400, "network other not found"),
    ),
    _endpoint(
        "MacAddress", "02:42:00:00:00:08", Inside("cat /sys/class/net/eth0/address", "02:42:00:00:00:08")
    ),
    _endpoint(
        "IPAMConfig",
        {"IPv4Address": "192.0.2.9"},
        Refused(400, ENDPOINT + "user specified IP address is supported on user defined networks only"),
    ),
    _endpoint(
        "Links",
        ["nosuch:b"],
        Refused(400, "could not get container for nosuch: No such container: nosuch"),
    ),
    _endpoint(
        "Aliases",
        ["ahoy"],
        Refused(
            400, ENDPOINT + "network-scoped alias is supported only for containers in user defined networks"
        ),
    ),
    _endpoint(
        "DriverOpts", {"com.docker.network.endpoint.ifname": "wan0"}, Inside("ls /sys/class/net", "lo\nwan0")
    ),
    _endpoint("GwPriority", 7, Elsewhere("clients/test_networks.py::test_several_networks_from_the_start")),
    *(
        _endpoint(
            name,
            value,
            Passed("a result, found anew at each start; clients send back what inspect has shown"),
        )
        for name, value in (
            ("NetworkID", "a"),
            ("EndpointID", "a"),
            ("Gateway", "192.0.2.1"),
            ("IPAddress", "192.0.2.9"),
            ("IPPrefixLen", 24),
            ("IPv6Gateway", "2001:db8::1"),
            ("GlobalIPv6Address", "2001:db8::2"),
            ("GlobalIPv6PrefixLen", 64),
            ("DNSNames", ["ahoy"]),
        )
    ),
)
