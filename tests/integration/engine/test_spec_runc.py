"""Our config.json is the standard's: runc, from another hand, runs it and confines as it says."""

import json
import os
import shutil
import subprocess

import pytest

from sampan.engine.model import Container, ContainerConfig, HostConfig, MountPoint
from sampan.engine.spec import SpecInputs, build_spec, validate_host_config
from sampan.linux import capabilities, cgroups
from support import needs

pytestmark = [pytest.mark.root, needs.program("runc"), needs.program("busybox", "busybox-static")]

SCRIPT = """
id -u; id -G; echo $HOME; cat /etc/hostname
grep -E '^(CapBnd|CapEff|Seccomp|NoNewPrivs):' /proc/self/status
touch /tmp/x || echo no
unshare -u true 2>/dev/null || echo confined
exit 9
"""


def test_runc_runs_it(tmp_path):
    root, files = tmp_path / "rootfs", tmp_path / "files"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "sbin"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    files.mkdir()
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    for name in ("sh", "id", "cat", "grep", "touch", "unshare", "true"):
        os.symlink("busybox", root / "bin" / name)
    (root / "etc/passwd").write_text("ann:x:1000:1000::/home/ann:/bin/sh\n")
    (root / "etc/group").write_text("wheel:x:10:ann\n")
    for name in ("hosts", "hostname", "resolv.conf"):
        (files / name).write_text("box\n")
    host_config = HostConfig(
        network_mode="none", init=True, memory=64 << 20, pids_limit=50, nano_cpus=500_000_000,
        readonly_rootfs=True, security_opt=["no-new-privileges"],
    )  # fmt: skip
    config = ContainerConfig(hostname="box", user="ann")
    validate_host_config(config, host_config)
    container = Container(
        id="0" * 64, name="c", created_at_ns=0, image_id="", config=config, host_config=host_config,
        path="sh", args=["-c", SCRIPT],
    )  # fmt: skip
    name = f"sampan-test-runc-{os.getpid()}"
    inputs = SpecInputs(
        container=container, rootfs=str(root), files_dir=str(files), netns_path="", cgroups_path=f"/{name}/c",
        mounts=[MountPoint(type="tmpfs", destination="/tmp", options=["mode=1777", "size=1m"])],
    )  # fmt: skip
    spec = build_spec(inputs)
    for entry in spec["linux"]["namespaces"]:
        if not entry.get("path"):
            entry.pop("path", None)  # a new network namespace
    (tmp_path / "config.json").write_text(json.dumps(spec))
    command = ["runc", "--root", str(tmp_path / "state"), "run", "--bundle", str(tmp_path), name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    finally:
        cgroups.manager_for(f"/{name}").remove()
    default = f"{capabilities.mask(capabilities.DEFAULT):016x}"
    assert done.stderr == ""
    assert done.stdout.split() == [
        "1000", *sorted(["1000", "10"], key=done.stdout.split()[1:3].index), "/home/ann", "box",
        "CapEff:", "0" * 16, "CapBnd:", default, "NoNewPrivs:", "1", "Seccomp:", "2", "confined",
    ]  # fmt: skip
    assert done.returncode == 9
