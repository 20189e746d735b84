"""What a container is: its configuration as clients give it, its state, and what the engine knows beside.

The JSON spelling of every field is Docker's (Engine API 1.51, `ContainerConfig`, `HostConfig` and the inspect
response); `sampan.oci.records` does the translation, for requests, answers and the database alike.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from sampan.dataclasses import dataclass
from sampan.oci.image import Healthcheck


def _json(name: str) -> Any:
    return field(default="", metadata={"json": name})


@dataclass(slots=True)
class ContainerConfig:
    """The portable half: what would make sense on any host."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool | None = None
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | None = None
    network_disabled: bool | None = None
    mac_address: str | None = None
    on_build: list[str] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str | None = None
    stop_timeout: int | None = None
    shell: list[str] | None = None
    health_on_failure: str | None = field(default=None, metadata={"json": "HealthcheckOnFailureAction"})


@dataclass(slots=True)
class LogConfig:
    """Log driver and its options."""

    type: str = ""
    config: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class RestartPolicy:
    """`no`, `on-failure`, `always` or `unless-stopped`."""

    name: str = ""
    maximum_retry_count: int = 0


@dataclass(slots=True)
class DeviceMapping:
    """A host device made visible in the container."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


@dataclass(slots=True)
class Ulimit:
    """One resource limit; -1 is unlimited."""

    name: str = ""
    soft: int = 0
    hard: int = 0


@dataclass(slots=True)
class WeightDevice:
    """Block I/O weight of one device."""

    path: str = ""
    weight: int = 0


@dataclass(slots=True)
class ThrottleDevice:
    """Block I/O rate of one device, bytes or operations a second."""

    path: str = ""
    rate: int = 0


@dataclass(slots=True)
class PortBinding:
    """Where on the host a container's port is published."""

    host_ip: str = ""
    host_port: str = ""


@dataclass(slots=True)
class BindOptions:
    """Options of `--mount type=bind`."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


@dataclass(slots=True)
class VolumeOptions:
    """Options of `--mount type=volume`."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: dict[str, Any] | None = None
    subpath: str = ""


@dataclass(slots=True)
class ImageOptions:
    """Options of `--mount type=image`."""

    subpath: str = ""


@dataclass(slots=True)
class TmpfsOptions:
    """Options of `--mount type=tmpfs`."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


@dataclass(slots=True)
class Mount:
    """One `--mount`. `id_map` and `chown` are ours, not Docker's (docs/volumes.md)."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    id_map: str | None = field(default=None, metadata={"json": "IDMap"})
    chown: bool | None = None


@dataclass(slots=True)
class HostConfig:
    """The half that depends on the host. `egress` is ours, not Docker's (docs/egress.md)."""

    cpu_shares: int = 0
    memory: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = field(
        default=None, metadata={"json": "BlkioDeviceReadIOps"}
    )
    blkio_device_write_iops: list[ThrottleDevice] | None = field(
        default=None, metadata={"json": "BlkioDeviceWriteIOps"}
    )
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[dict[str, Any]] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    nano_cpus: int = 0
    oom_kill_disable: bool | None = None
    init: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    binds: list[str] | None = None
    container_id_file: str = field(default="", metadata={"json": "ContainerIDFile"})
    log_config: LogConfig = field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding]] | None = None
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    mounts: list[Mount] | None = None
    console_size: list[int] | None = None
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = field(default="", metadata={"json": "UTSMode"})
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    egress: str | None = None


@dataclass(slots=True)
class MountPoint:
    """A mount that the container has, as inspect shows it, and what the engine knows of it beside.

    Attributes:
        options: of a tmpfs, for mount(8); else as `mountpoints` says.
        labels, driver_options: of a volume, should it have to be made.
        subpath: what of the volume or image is shown, when not all.
        image_id: of an image mount.
        disk_owner: `UID:GID`, as whom the container's user reads and writes there; "" for as itself.
    """

    type: str = ""
    name: str = ""
    source: str = ""
    destination: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = field(default=True, metadata={"json": "RW"})
    propagation: str = ""
    options: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    driver_options: dict[str, str] = field(default_factory=dict)
    subpath: str = ""
    image_id: str = ""
    disk_owner: str = ""


@dataclass(slots=True)
class EndpointIPAMConfig:
    """The addresses that a container is to have in a network."""

    ipv4_address: str = field(default="", metadata={"json": "IPv4Address"})
    ipv6_address: str = field(default="", metadata={"json": "IPv6Address"})
    link_local_ips: list[str] | None = field(default=None, metadata={"json": "LinkLocalIPs"})


@dataclass(slots=True)
class EndpointSettings:
    """A container's place in one network: what was asked for, and what it has while the container runs."""

    ipam_config: EndpointIPAMConfig | None = field(default=None, metadata={"json": "IPAMConfig"})
    links: list[str] | None = None
    aliases: list[str] | None = None
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    desired_mac_address: str = ""  # ours; what follows is found at the start
    network_id: str = _json("NetworkID")
    endpoint_id: str = _json("EndpointID")
    gateway: str = ""
    ip_address: str = _json("IPAddress")
    ip_prefix_len: int = field(default=0, metadata={"json": "IPPrefixLen"})
    mac_address: str = ""
    ipv6_gateway: str = field(default="", metadata={"json": "IPv6Gateway"})
    global_ipv6_address: str = field(default="", metadata={"json": "GlobalIPv6Address"})
    global_ipv6_prefix_len: int = field(default=0, metadata={"json": "GlobalIPv6PrefixLen"})
    dns_names: list[str] | None = field(default=None, metadata={"json": "DNSNames"})


@dataclass(slots=True)
class Probe:
    """One health check that is over; -1 as exit code: it could not be run, or not in its time."""

    start_ns: int = 0
    end_ns: int = 0
    exit_code: int = 0
    output: str = ""


@dataclass(slots=True)
class Health:
    """What the health checks have found; the last probes, oldest first."""

    status: str = "starting"  # starting, healthy, unhealthy
    failing_streak: int = 0
    log: list[Probe] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """Where a container is in its life; times are nanoseconds since 1970, 0 for never."""

    status: str = "created"  # created, running, paused, restarting, removing, exited, dead
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at_ns: int = 0
    finished_at_ns: int = 0
    health: Health | None = None

    @property
    def running(self) -> bool:
        """Whether a process of the container exists (a paused one counts)."""
        return self.status in ("running", "paused")

    @property
    def active(self) -> bool:
        """What Docker counts as running: a process exists, or is to be started again in a moment."""
        return self.status in ("running", "paused", "restarting")


@dataclass(slots=True)
class Container:
    """Everything about one container that outlives the daemon."""

    id: str
    name: str
    created_at_ns: int
    image_id: str
    config: ContainerConfig  # merged with the image's
    host_config: HostConfig
    path: str = ""
    args: list[str] = field(default_factory=list)
    platform: str = "linux"
    driver: str = ""
    state: State = field(default_factory=State)
    mounts: list[MountPoint] = field(default_factory=list)
    networks: dict[str, EndpointSettings] = field(default_factory=dict)
    networks_chosen: bool = False  # else it is in that of its mode: one from before there were several
    ports: dict[str, list[PortBinding]] = field(default_factory=dict)  # published at this run
    sandbox_key: str = ""
    restart_count: int = 0
    stopped_by_user: bool = False
    to_be_removed: bool = False  # a forced removal has begun, or will come: the next daemon sees to it
    links: dict[str, str] = field(default_factory=dict)  # on the default bridge: alias to container id
    linked_environment: list[str] = field(default_factory=list)  # what those set at this run
