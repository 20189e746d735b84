"""What a container's options become in its config.json, which the published schema accepts."""

import json
import os
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry
from referencing.jsonschema import DRAFT4

from sampan.engine.core import ExecConfig
from sampan.engine.model import (
    Container,
    ContainerConfig,
    DeviceMapping,
    HostConfig,
    MountPoint,
    ThrottleDevice,
    Ulimit,
)
from sampan.engine.spec import SpecInputs, build_spec, exec_process
from sampan.engine.spec.capability_sets import available
from sampan.engine.spec.mounts import id_mappings
from sampan.errors import InvalidParameter
from sampan.linux import capabilities
from sampan.runtime.bundle import parse_config

SCHEMAS = Path(__file__).resolve().parents[2] / "specs" / "oci-runtime"


def schema(name: str) -> object:
    return json.loads((SCHEMAS / name).read_text())


VALIDATOR = jsonschema.Draft4Validator(
    {**schema("config-schema.json"), "id": "file:///config-schema.json"},
    registry=Registry(retrieve=lambda uri: DRAFT4.create_resource(schema(uri.rsplit("/", 1)[-1]))),
)


@pytest.fixture
def build(tmp_path):
    """A config.json for options; checked against the schema and against our runtime's own reading."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")
    (tmp_path / "etc/group").write_text("root:x:0:\nann:x:1000:\nwheel:x:10:ann\n")
    files = tmp_path / "files"
    files.mkdir()
    for name in ("hosts", "hostname", "resolv.conf"):
        (files / name).write_text("")

    def build(host_config=None, mounts=(), netns="/run/netns/x", joins=None, **config):
        host = host_config or HostConfig()
        host.network_mode = host.network_mode or "bridge"
        container = Container(
            id="c" * 64, name="c", created_at_ns=0, image_id="i", path="/bin/sh", args=["-c", "true"],
            config=ContainerConfig(hostname="box", **config), host_config=host,
        )  # fmt: skip
        inputs = SpecInputs(
            container=container, rootfs=str(tmp_path), mounts=list(mounts), files_dir=str(files),
            netns_path=netns, cgroups_path="/sampan/c", joins=joins or {},
        )  # fmt: skip
        spec = json.loads(json.dumps(build_spec(inputs)))
        VALIDATOR.validate(spec)
        parse_config(spec)
        build.container = container
        return spec

    build.root = tmp_path
    return build


def mount_at(spec, destination):
    return next((mount for mount in spec["mounts"] if mount["destination"] == destination), None)


def kinds(spec):
    return {entry["type"]: entry.get("path", "") for entry in spec["linux"]["namespaces"]}


def test_a_plain_container(build):
    spec = build()
    process = spec["process"]
    assert process["args"] == ["/bin/sh", "-c", "true"]
    assert process["cwd"] == "/"
    assert process["env"][1:] == ["HOSTNAME=box", "HOME=/root"]
    assert process["env"][0].startswith("PATH=/usr/local/sbin:")
    assert process["user"] == {"uid": 0, "gid": 0, "additionalGids": [0]}
    assert process["capabilities"]["bounding"] == list(capabilities.DEFAULT)
    assert "inheritable" not in process["capabilities"]
    assert spec["root"] == {"path": str(build.root), "readonly": False}
    assert kinds(spec) == {
        "mount": "", "network": "/run/netns/x", "uts": "", "pid": "", "ipc": "", "cgroup": "",
    }  # fmt: skip
    linux = spec["linux"]
    assert linux["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {"/proc/kcore", "/sys/firmware", "/proc/interrupts"} <= set(linux["maskedPaths"])
    assert "/proc/sys" in linux["readonlyPaths"]
    assert "ro" in mount_at(spec, "/sys")["options"]
    assert "size=67108864" in mount_at(spec, "/dev/shm")["options"]
    assert mount_at(spec, "/etc/hosts")["options"] == ["rbind", "rprivate"]
    assert spec["hostname"] == "box"


def test_users(build):
    spec = build(HostConfig(group_add=["wheel", "77"]), user="ann", env=["A=1", "PATH=/x"], tty=True)
    assert spec["process"]["user"] == {"uid": 1000, "gid": 1000, "additionalGids": [1000, 10, 77]}
    assert spec["process"]["env"] == ["PATH=/x", "HOSTNAME=box", "TERM=xterm", "A=1", "HOME=/home/ann"]
    assert set(spec["process"]["capabilities"]) == {"bounding"}
    with pytest.raises(InvalidParameter, match="unable to find user bob: no matching entries in passwd file"):
        build(user="bob")


def test_privileged(build):
    spec = build(HostConfig(privileged=True))
    linux = spec["linux"]
    assert spec["process"]["capabilities"]["effective"] == list(available())
    assert "seccomp" not in linux and "maskedPaths" not in linux and "readonlyPaths" not in linux
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert {"/dev/null", "/dev/zero"} <= {device["path"] for device in linux["devices"]}
    assert not any(device["path"].startswith(("/dev/pts/", "/dev/console")) for device in linux["devices"])
    assert "ro" not in mount_at(spec, "/sys")["options"]
    assert "ro" not in mount_at(spec, "/sys/fs/cgroup")["options"]


@pytest.mark.parametrize(
    ("add", "drop", "check"),
    [
        (["net_admin"], ["CAP_CHOWN"], lambda names: "CAP_NET_ADMIN" in names and "CAP_CHOWN" not in names),
        ([], ["all"], lambda names: not names),
        (["CHOWN"], ["ALL"], lambda names: names == ["CAP_CHOWN"]),
        (["ALL"], ["SYS_ADMIN"], lambda names: names == [n for n in available() if n != "CAP_SYS_ADMIN"]),
    ],
)
def test_capabilities(build, add, drop, check):
    spec = build(HostConfig(cap_add=add, cap_drop=drop))
    assert check(spec["process"]["capabilities"]["bounding"])
    assert parse_config(spec).process.capabilities.inheritable == []


def test_readonly_root(build):
    spec = build(HostConfig(readonly_rootfs=True), mounts=[MountPoint(type="tmpfs", destination="/run")])
    assert spec["root"]["readonly"]
    assert "ro" in mount_at(spec, "/etc/hosts")["options"]
    assert "ro" not in mount_at(spec, "/dev")["options"] + mount_at(spec, "/run")["options"]


def test_binds_volumes_and_tmpfs(build):
    spec = build(
        mounts=[
            MountPoint(
                type="tmpfs", destination="/t/deep", options=["noexec", "size=1m", "exec", "mode=700"]
            ),
            MountPoint(type="bind", source="/srv", destination="/a", rw=False, propagation="rprivate"),
            MountPoint(type="bind", source="/srv", destination="/b", rw=False, options=["ro-non-recursive"]),
            MountPoint(type="bind", source="/srv", destination="/c", options=["non-recursive"]),
            MountPoint(type="volume", source="/v", destination="/etc/hosts"),
        ]
    )
    assert mount_at(spec, "/a")["options"] == ["rbind", "ro", "rro", "rprivate"]
    assert mount_at(spec, "/b")["options"] == ["rbind", "ro", "rprivate"]
    assert mount_at(spec, "/c")["options"] == ["bind", "rprivate"]
    assert mount_at(spec, "/t/deep")["options"] == ["size=1m", "exec", "mode=700"]
    assert [mount["source"] for mount in spec["mounts"] if mount["destination"] == "/etc/hosts"] == ["/v"]
    assert spec["mounts"].index(mount_at(spec, "/a")) < spec["mounts"].index(mount_at(spec, "/t/deep"))
    with pytest.raises(InvalidParameter, match="sized"):
        build(mounts=[MountPoint(type="tmpfs", destination="/t", options=["sized=1"])])


def test_a_mount_on_dev_takes_the_place_of_ours(build):
    spec = build(mounts=[MountPoint(type="bind", source="/dev", destination="/dev")])
    assert mount_at(spec, "/dev/pts") is None
    assert mount_at(spec, "/dev")["type"] == "bind"


def test_sharing_needs_a_shared_source(build, monkeypatch):
    from sampan.engine.spec import mounts

    tags = {"/shared": ["shared:1"], "/slave": ["master:1"], "/plain": []}
    monkeypatch.setattr(mounts, "_mount_of", lambda path: (path, tags[path]))

    def propagation(source, wanted):
        point = MountPoint(type="bind", source=source, destination="/d", propagation=wanted)
        return build(mounts=[point])["linux"].get("rootfsPropagation")

    assert propagation("/shared", "rshared") == "shared"
    assert propagation("/slave", "rslave") is None
    with pytest.raises(InvalidParameter, match="/plain is mounted on /plain but it is not a shared mount"):
        propagation("/plain", "shared")
    with pytest.raises(InvalidParameter, match="not a shared or slave mount"):
        propagation("/plain", "slave")


def test_namespaces_of_others(build):
    host = HostConfig(pid_mode="host", uts_mode="host", cgroupns_mode="host", network_mode="host")
    spec = build(host, netns=None)
    assert kinds(spec) == {"mount": "", "ipc": ""}
    assert "hostname" not in spec
    assert spec["linux"]["sysctl"] == {}
    joined = build(HostConfig(pid_mode="container:x", ipc_mode="container:x"), joins={
        "pid": "/proc/7/ns/pid", "ipc": "/proc/7/ns/ipc"
    })  # fmt: skip
    assert (kinds(joined)["pid"], kinds(joined)["ipc"]) == ("/proc/7/ns/pid", "/proc/7/ns/ipc")


def test_resources(build):
    host = HostConfig(
        memory=1 << 26, memory_swap=1 << 27, nano_cpus=1_500_000_000, cpu_shares=512, cpuset_cpus="0",
        pids_limit=9, blkio_weight=100, oom_score_adj=100,
        ulimits=[Ulimit("nofile", 5, 6), Ulimit("core", -1, -1)],
    )  # fmt: skip
    spec = build(host)
    resources = spec["linux"]["resources"]
    assert resources["memory"] == {"limit": 1 << 26, "swap": 1 << 27}
    assert resources["cpu"] == {"period": 100000, "quota": 150000, "shares": 512, "cpus": "0"}
    assert (resources["pids"], resources["blockIO"]) == ({"limit": 9}, {"weight": 100})
    assert spec["process"]["oomScoreAdj"] == 100
    assert spec["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 5, "hard": 6},
        {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1},
    ]
    assert "pids" not in build(HostConfig(pids_limit=-1))["linux"]["resources"]
    with pytest.raises(InvalidParameter, match="not a block device"):
        build(HostConfig(blkio_device_read_bps=[ThrottleDevice("/dev/null", 1)]))


def test_devices(build):
    host = HostConfig(
        devices=[DeviceMapping("/dev/zero", "/dev/naught", "r")], device_cgroup_rules=["b 8:* rw"]
    )
    linux = build(host)["linux"]
    (device,) = linux["devices"]
    assert (device["path"], device["type"], device["major"], device["minor"]) == ("/dev/naught", "c", 1, 5)
    assert linux["resources"]["devices"][1:] == [
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"},
        {"allow": True, "type": "b", "access": "rw", "major": 8},
    ]
    for path, reason in (("/etc/passwd", "not a device node"), ("/dev/nope", "no such file or directory")):
        with pytest.raises(InvalidParameter, match=f'custom device "{path}": {reason}'):
            build(HostConfig(devices=[DeviceMapping(path, path, "rwm")]))


def test_init_runs_the_command_where_it_is_process_1(build):
    spec = build(HostConfig(init=True))
    assert spec["process"]["args"] == ["/sbin/docker-init", "--", "/bin/sh", "-c", "true"]
    mount = mount_at(spec, "/sbin/docker-init")
    assert mount["options"] == ["bind", "ro"]
    assert os.access(mount["source"], os.X_OK)
    assert build(HostConfig(init=True, pid_mode="host"))["process"]["args"][0] == "/bin/sh"


def test_security_options(build):
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]}],
        "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_LOG", "excludes": {"caps": ["CAP_CHOWN"]}},
            {"name": "rmdir", "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_CHOWN"]},
             "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
            {"names": ["unlink"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["s390x"]}},
            {"names": ["link"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "4.8"}},
            {"names": ["open"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "99.0"}},
        ],
    }  # fmt: skip
    options = [
        f"seccomp={json.dumps(profile)}",
        "no-new-privileges",
        "systempaths=unconfined",
        "label=disable",
    ]
    spec = build(HostConfig(security_opt=[*options, "writable-cgroups=true", "apparmor=unconfined"]))
    seccomp = spec["linux"]["seccomp"]
    assert [rule["names"] for rule in seccomp["syscalls"]] == [["rmdir"], ["link"]]
    assert len(seccomp["architectures"]) == 2
    assert spec["process"]["noNewPrivileges"]
    assert "maskedPaths" not in spec["linux"]
    assert "ro" not in mount_at(spec, "/sys/fs/cgroup")["options"]
    assert "seccomp" not in build(HostConfig(security_opt=["seccomp:unconfined"]))["linux"]
    privileged = HostConfig(privileged=True, security_opt=[f"seccomp={json.dumps(profile)}"])
    assert build(privileged)["linux"]["seccomp"]["defaultAction"] == "SCMP_ACT_ALLOW"


def test_paths_and_sysctls_of_the_users_choice(build):
    host = HostConfig(masked_paths=["/proc/x"], readonly_paths=[], sysctls={"net.core.somaxconn": "9"})
    linux = build(host)["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == (["/proc/x"], [])
    assert linux["sysctl"]["net.core.somaxconn"] == "9"
    assert linux["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert build(HostConfig(annotations={"a": "b"}))["annotations"] == {"a": "b"}


def test_exec(build):
    spec = build(HostConfig(cap_drop=["CHOWN"]), env=["A=1", "B=2"], working_dir="/srv")
    config = ExecConfig(cmd=["id"], env=["A=3", "B"], user="ann:wheel", tty=True, console_size=[24, 80])
    process = exec_process(build.container, config, spec["process"], str(build.root))
    VALIDATOR.validate({**spec, "process": process})
    assert (process["args"], process["cwd"]) == (["id"], "/srv")
    assert process["env"][1:] == ["HOSTNAME=box", "TERM=xterm", "A=3", "HOME=/home/ann"]
    assert process["user"] == {"uid": 1000, "gid": 10, "additionalGids": [10]}
    assert set(process["capabilities"]) == {"bounding"}
    assert process["consoleSize"] == {"height": 24, "width": 80}
    process = exec_process(
        build.container, ExecConfig(cmd=["id"], privileged=True), spec["process"], str(build.root)
    )
    assert process["capabilities"]["effective"] == list(available())
    with pytest.raises(InvalidParameter, match="needs to be an absolute path"):
        exec_process(
            build.container, ExecConfig(cmd=["id"], working_dir="x"), spec["process"], str(build.root)
        )


@pytest.mark.parametrize(
    ("disk", "seen", "expected"),
    [
        (1000, 0, [(1000, 0, 1), (1, 1, 999), (1001, 1001, 2**32 - 1 - 1001)]),
        (0, 1000, [(0, 1000, 1), (1, 1, 999), (1001, 1001, 2**32 - 1 - 1001)]),
        (1000, 1001, [(1000, 1001, 1), (0, 0, 1000), (1002, 1002, 2**32 - 1 - 1002)]),
        (7, 7, [(0, 0, 2**32 - 1)]),
        (2**32 - 2, 0, [(2**32 - 2, 0, 1), (1, 1, 2**32 - 3)]),
    ],
)
def test_an_id_map_exchanges_nothing(disk: int, seen: int, expected: list[tuple[int, int, int]]) -> None:
    """One id is another; the disk's of that other number belong to nobody."""
    lines = [(line["containerID"], line["hostID"], line["size"]) for line in id_mappings(disk, seen)]
    assert lines == expected


def test_whose_files_are_another_users_on_the_disk(build) -> None:
    def bind(owner, **options):
        point = MountPoint(type="bind", source="/s", destination="/d", disk_owner=owner, **options)
        return mount_at(build(mounts=[point], user="33:34"), "/d")

    mount = bind("1000:1001")
    assert "ridmap" in mount["options"]
    assert mount["uidMappings"][0] == {"containerID": 1000, "hostID": 33, "size": 1}
    assert mount["gidMappings"][0] == {"containerID": 1001, "hostID": 34, "size": 1}
    assert "idmap" in bind("1000:1001", options=["non-recursive"])["options"]
    for same in (bind("33:34"), bind("")):
        assert "uidMappings" not in same and "ridmap" not in same["options"]
