"""Runs a command on another machine: Debian's stock kernel, emulated by qemu, over this root file system.

    tools/machine.py [--cgroups v2|hybrid|v1] [--append 'kernel options'] [--memory MIB] -- COMMAND …

The kernel package is only downloaded and unpacked into a cache, never installed, so that no hook of its runs
and the machine's own /boot stays as it is. The guest sees this machine's files read-only by 9p (mount(8));
/tmp is a fresh ext4 disk, /run, /var/tmp and /var/lib are fresh tmpfs, and there is a small swap disk. It has
no network. Emulated alone (no KVM), so it runs wherever qemu does, some twenty times slower than the machine
itself. Stdlib only; run as root.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import lzma
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DRIVERS = ("virtio_pci", "virtio_blk", "9pnet_virtio", "9p", "ext4", "crc32c_generic")
LAYOUTS = ("v2", "hybrid", "v1")
FRESH = ("run", "var/tmp", "var/lib")  # a tmpfs each, so that nothing of this machine's is written to
DISK_MIB, SWAP_MIB = 4096, 256


class NoMachine(Exception):
    """What is missing, in one line."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package: where it is, its release and its machine as uname(1) says them."""

    directory: Path
    release: str
    machine: str = "x86_64"

    @property
    def image(self) -> Path:
        """What the boot loader loads."""
        return self.directory / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        """The directory of its modules."""
        return self.directory / "lib/modules" / self.release


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: the command's exit status; None when the guest did not get that far.
        output: all that the guest printed.
    """

    status: int | None
    output: str
    seconds: float


def cache() -> Path:
    """Where unpacked kernels are kept between runs."""
    directory = Path(os.environ.get("XDG_CACHE_HOME") or "/var/cache") / "sampan-test"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _said(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise NoMachine(f"{' '.join(command)}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    return done.stdout


def kernel(download: bool = True) -> Kernel:
    """Debian's stock kernel, from the cache, or fetched.

    Args:
        download: fetch it when it is not there; False where there is no network.

    Raises:
        NoMachine: it cannot be had.
    """
    place = cache() / "kernel"
    with (cache() / "kernel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            if not download:
                raise NoMachine("Debian's kernel (linux-image-amd64) has not been fetched")
            _unpack(place)
    releases = os.listdir(place / "lib/modules")
    return Kernel(place, releases[0])


def _unpack(place: Path) -> None:
    if os.uname().machine != "x86_64":
        raise NoMachine("machines are emulated on x86-64 only")
    for program in ("apt-get", "dpkg-deb", "depmod"):
        if shutil.which(program) is None:
            raise NoMachine(f"needs the program {program}")
    names = _said("apt-cache", "depends", "linux-image-amd64").split()
    package = next((name for name in names if name.startswith("linux-image-") and name[12].isdigit()), None)
    if package is None:
        raise NoMachine("apt does not know linux-image-amd64 (Debian only; apt-get update first)")
    with tempfile.TemporaryDirectory(dir=cache()) as scratch:
        _said("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package, cwd=Path(scratch))
        archive = next(Path(scratch).glob("*.deb"))
        unpacked = Path(scratch, "kernel")
        _said("dpkg-deb", "-x", str(archive), str(unpacked))
        if not (unpacked / "lib").exists():  # since Debian 13
            (unpacked / "lib").symlink_to("usr/lib")
        (release,) = os.listdir(unpacked / "lib/modules")
        _said("depmod", "-b", str(unpacked), release)
        unpacked.rename(place)


# --- the initial file system (Documentation/driver-api/early-userspace/buffer-format.rst) ---


def _load_order(found: Kernel) -> list[Path]:
    """The files of `DRIVERS` and of what they depend on, in the order of loading."""
    paths: dict[str, list[str]] = {}
    for line in (found.modules / "modules.dep").read_text().splitlines():
        path, _, needs = line.partition(":")
        paths[Path(path).name.partition(".")[0]] = [path, *needs.split()]
    order: dict[str, None] = {}
    for name in DRIVERS:
        order.update(dict.fromkeys(reversed(paths.get(name.replace("-", "_"), []))))
    return [found.modules / path for path in order]


def _entry(name: str, mode: int, data: bytes = b"") -> bytes:
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
    head += bytes(-len(head) % 4)
    return head + data + bytes(-len(data) % 4)


def _module(path: Path) -> bytes:
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content  # busybox loads plain ones only


def _initramfs(found: Kernel, root: Path) -> bytes:
    places = [root / folder / "busybox" for folder in ("bin", "usr/bin")]
    busybox = next((place for place in places if place.exists()), None)
    if busybox is None:
        raise NoMachine("needs the program busybox (Debian: busybox-static)")
    modules = _load_order(found)
    parts = [_entry(name, 0o40755) for name in ("bin", "dev", "proc", "sys", "root", "modules")]
    parts.append(_entry("bin/busybox", 0o100755, busybox.read_bytes()))
    parts += [_entry(f"modules/{path.stem}", 0o100644, _module(path)) for path in modules]
    script = _INIT.format(
        modules=" ".join(path.stem for path in modules),
        fresh=" ".join(FRESH),
        checkout=shlex.quote(str(ROOT)),
    )
    parts.append(_entry("init", 0o100755, script.encode()))
    parts.append(_entry("TRAILER!!!", 0))
    return gzip.compress(b"".join(parts), 1)


_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in {modules}; do insmod /modules/$module || echo "machine: $module cannot be loaded"; done
options=trans=virtio,version=9p2000.L,msize=262144
mount -t 9p -o $options,ro,cache=loose host /root || poweroff -f
for directory in {fresh}; do mount -t tmpfs -o mode=755 fresh /root/$directory; done
mount -t ext4 /dev/vda /root/tmp
chmod 1777 /root/tmp /root/var/tmp
mkdir -p /root/run/lock /root/run/out /root/run/kernel /root/run/checkout
mount -t 9p -o $options,ro,cache=loose kernel /root/run/kernel
mount -t 9p -o $options,ro,cache=loose checkout /root/run/checkout
mount -t 9p -o $options out /root/run/out
mkdir -p /root{checkout} 2>/dev/null && mount --bind /root/run/checkout /root{checkout}
for directory in proc dev; do mount --move /$directory /root/$directory; done
mount -t sysfs sys /root/sys
cp /bin/busybox /root/run/busybox
exec switch_root /root /run/busybox sh /run/out/start
"""

_START = """
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 TERM=dumb
export PYTHONDONTWRITEBYTECODE=1 SAMPAN_MACHINE={layout} SAMPAN_EMULATED=1
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o mode=620,gid=5,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t securityfs securityfs /sys/kernel/security
ln -s /proc/self/fd /dev/fd; ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout; ln -s /proc/self/fd/2 /dev/stderr
mount --make-rshared /
printf '#!/bin/sh\\nexec /sbin/modprobe -d /run/kernel "$@"\\n' >/run/modprobe
chmod 755 /run/modprobe
echo /run/modprobe >/proc/sys/kernel/modprobe
echo 4 >/proc/sys/kernel/printk
ip link set lo up
hostname machine
/run/busybox swapon /dev/vdb
{cgroups}
cd {cwd}
{command}
echo $? >/run/out/status
sync
/run/busybox poweroff -f
"""

_V1 = ("cpu,cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb")


def _cgroups(layout: str) -> str:
    if layout == "v2":
        return "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    lines = ["mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup"]
    for controllers in (*_V1, *(["unified"] if layout == "hybrid" else [])):
        options = "-t cgroup2" if controllers == "unified" else f"-t cgroup -o {controllers}"
        lines.append(f"mkdir /sys/fs/cgroup/{controllers}")
        lines.append(f"mount {options} cgroup /sys/fs/cgroup/{controllers}")
    return "\n".join(lines)


def run(
    command: list[str],
    layout: str = "v2",
    *,
    append: str = "",
    memory_mib: int = 2048,
    timeout_s: float = 600,
    echo: bool = False,
    download: bool = True,
    root: Path = Path("/"),
    booted: Kernel | None = None,
) -> Outcome:
    """Boot, run the command in the checkout's directory as root, power off.

    Args:
        command: its arguments.
        layout: how cgroups are mounted, one of `LAYOUTS`.
        append: more options for the kernel's command line.
        memory_mib: of the guest.
        timeout_s: after which the guest is stopped.
        echo: pass on what it prints, as it comes.
        download: fetch the kernel when it is not there yet.
        root: the guest's root file system; it finds the checkout at /run/checkout, too.
        booted: another kernel than the stock one.

    Raises:
        NoMachine: qemu, the kernel or a tool is missing.
    """
    found = booted or kernel(download)
    for program, package in (("qemu-system-" + found.machine, "qemu-system"), ("mkfs.ext4", "e2fsprogs")):
        if shutil.which(program) is None:
            raise NoMachine(f"needs the program {program} (Debian: {package})")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sampan-machine-") as name:
        scratch = Path(name)
        out = scratch / "out"
        out.mkdir()
        cwd = shlex.quote(str(ROOT) if root == Path("/") else "/run/checkout")
        start = _START.format(layout=layout, cgroups=_cgroups(layout), cwd=cwd, command=shlex.join(command))
        (out / "start").write_text(start)
        (scratch / "initramfs").write_bytes(_initramfs(found, root))
        disk, swap = _disk(scratch / "disk", DISK_MIB), _disk(scratch / "swap", SWAP_MIB)
        _said("mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(disk))
        _said("mkswap", str(swap))
        output = _qemu(_qemu_command(found, scratch, root, append, memory_mib), timeout_s, echo)
        status = out / "status"
        code = int(status.read_text()) if status.exists() else None
    return Outcome(code, output, time.monotonic() - began)


def _disk(path: Path, mebibytes: int) -> Path:
    with path.open("wb") as file:
        file.truncate(mebibytes << 20)
    return path


# The console, the board and the processor that emulate well: what a kernel does with the features left out
# here (copies byte by byte, deeper page tables, a switch at each access to a user's memory) takes long.
# On a busy machine the emulated clock does not tick while the kernel looks whether it does: it would panic.
_HARDWARE = {
    "x86_64": (
        "ttyS0 tsc=unstable no_timer_check",
        ("-M", "pc", "-cpu", "max,-erms,-fsrm,-la57,-smap,-smep,-umip,-pku"),
    ),
    "aarch64": ("ttyAMA0", ("-M", "virt", "-cpu", "cortex-a57")),
}


def _qemu_command(found: Kernel, scratch: Path, root: Path, append: str, memory_mib: int) -> list[str]:
    console, hardware = _HARDWARE[found.machine]
    line = f"console={console} quiet panic=-1 mitigations=off nokaslr {append}"
    command = [
        *(f"qemu-system-{found.machine}", *hardware),
        # One processor: two have to be kept in step, and all takes 1.6 times as long.
        *("-accel", "tcg,thread=single,tb-size=512", "-smp", "1"),
        *("-m", str(memory_mib), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-serial", "stdio", "-kernel", str(found.image), "-initrd", str(scratch / "initramfs")),
        *("-append", line),
    ]
    shares = (
        ("host", root, ",readonly=on"),
        ("kernel", found.directory, ",readonly=on"),
        ("checkout", ROOT, ",readonly=on"),
        ("out", scratch / "out", ""),
    )
    for tag, path, more in shares:
        command += ["-fsdev", f"local,id={tag},path={path},security_model=none,multidevs=remap{more}"]
        command += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    for disk in ("disk", "swap"):
        command += ["-drive", f"file={scratch / disk},if=none,id={disk},format=raw,cache=unsafe"]
        command += ["-device", f"virtio-blk-pci,drive={disk}"]
    return command


def _qemu(command: list[str], timeout_s: float, echo: bool) -> str:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    text = b""
    deadline = time.monotonic() + timeout_s
    try:
        os.set_blocking(process.stdout.fileno(), False)
        while process.poll() is None or text[-1:]:
            piece = process.stdout.read()
            if piece:
                text += piece
                if echo:
                    sys.stdout.buffer.write(piece)
                    sys.stdout.flush()
            elif process.poll() is not None:
                break
            elif time.monotonic() > deadline:
                text += b"\nmachine: out of time\n"
                break
            else:
                time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return text.decode(errors="replace").replace("\r\n", "\n")


def main() -> int:
    """The command line above; its exit status is the command's."""
    parser = argparse.ArgumentParser(description="Run a command on an emulated machine.")
    parser.add_argument("--cgroups", choices=LAYOUTS, default="v2")
    parser.add_argument("--append", default="", help="more options for the kernel")
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB")
    parser.add_argument("--timeout", type=float, default=3600, metavar="SECONDS")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args()
    try:
        done = run(
            given.command, given.cgroups, append=given.append, memory_mib=given.memory,
            timeout_s=given.timeout, echo=True,
        )  # fmt: skip
    except NoMachine as error:
        print(f"machine: {error}", file=sys.stderr)
        return 125
    print(f"machine: {done.seconds:.0f} s", file=sys.stderr)
    return 125 if done.status is None else done.status


if __name__ == "__main__":
    sys.exit(main())
