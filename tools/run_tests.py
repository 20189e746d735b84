"""What ./test does: see to the packages, make the environment, run the checks, run pytest.

Checks (ruff, mypy, import-linter) run first and never stop the tests; what they found is repeated in pytest's
summary, so that the last line of the output is pytest's own. Run by the system's Python; stdlib only.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import environment  # noqa: E402  (these live beside this file)
import isolation  # noqa: E402
import leftovers  # noqa: E402
import machine  # noqa: E402
import roots  # noqa: E402
import sshd  # noqa: E402

MOST_AGAIN = 5  # tests that may fail beside others and be run again alone
POLICY = Path("/usr/sbin/policy-rc.d")

# A program that shows that the package is there, and the Debian packages that bring it (the first known one
# is taken: newer Debians keep the docker client in a package of its own).
PACKAGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("busybox", ("busybox-static",)),
    ("mmdebstrap", ("mmdebstrap",)),
    ("docker", ("docker-cli", "docker.io")),
    ("dockerd", ("docker.io",)),
    ("podman", ("podman",)),
    ("skopeo", ("skopeo",)),
    ("umoci", ("umoci",)),
    ("crun", ("crun",)),
    ("runc", ("runc",)),
    ("nft", ("nftables",)),
    ("iptables", ("iptables",)),
    ("ip", ("iproute2",)),
    ("ps", ("procps",)),
    ("setfattr", ("attr",)),
    ("setcap", ("libcap2-bin",)),
    ("nsenter", ("util-linux",)),
    ("newuidmap", ("uidmap",)),
    ("slirp4netns", ("slirp4netns",)),
    ("tmux", ("tmux",)),
    ("bzip2", ("bzip2",)),
    ("xz", ("xz-utils",)),
    ("zstd", ("zstd",)),
    ("openssl", ("openssl",)),
    ("gpg-agent", ("gnupg",)),
    ("docker-registry", ("docker-registry",)),
    ("docker-compose", ("docker-compose",)),
    ("qemu-aarch64-static", ("qemu-user-static",)),
    ("qemu-system-x86_64", ("qemu-system-x86",)),  # other machines: see tools/machine.py
    ("depmod", ("kmod",)),
    ("mkfs.ext4", ("e2fsprogs",)),
    ("mkfs.xfs", ("xfsprogs",)),
    ("mkfs.btrfs", ("btrfs-progs",)),
    ("fuse-overlayfs", ("fuse-overlayfs",)),
    ("apparmor_parser", ("apparmor",)),
    ("ssh", ("openssh-client",)),  # the server is only unpacked: see tools/sshd.py
)

CHECKS: tuple[tuple[str, ...], ...] = (
    ("ruff", "check", "--quiet"),
    ("ruff", "format", "--check", "--quiet"),
    ("mypy", *(["--cache-dir=/dev/null"] if "CI" in os.environ else [])),  # where nobody will read it
    ("lint-imports",),
)


def missing_packages() -> list[str]:
    """The Debian packages to install, by the programs that are not there."""
    wanted: set[str] = set()
    for program, packages in PACKAGES:
        found = shutil.which(program)
        if found is None or (program == "busybox" and not is_static(Path(found))):
            wanted.add(next((name for name in packages if known(name)), packages[-1]))
    return sorted(wanted)


def is_static(program: Path) -> bool:
    """Whether an ELF program names no dynamic loader (elf(5): no PT_INTERP segment)."""
    return b"/ld-" not in program.read_bytes()[:4096]


def known(package: str) -> bool:
    """Whether apt has a version of this package to offer."""
    shown = subprocess.run(
        ["apt-cache", "policy", package],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return "Candidate:" in shown.stdout and "Candidate: (none)" not in shown.stdout


def apt(*arguments: str) -> bool:
    """Run apt-get with its output shown only when it fails."""
    command = ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=600", *arguments]
    if "CI" in os.environ:  # a machine for once need not wait for its disk
        command[1:1] = ["-o", "DPkg::Options::=--force-unsafe-io"]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(f"./test: {' '.join(command)} failed:\n{done.stdout[-4000:]}", file=sys.stderr)
    return done.returncode == 0


def install_packages() -> None:
    """Install the Debian packages that are missing; where that cannot be, say so and go on.

    While docker.io is installed, a policy keeps it from starting its daemon: the tests start their own.
    """
    if shutil.which("apt-get") is None:
        return
    if not missing_packages():
        return
    if os.geteuid() != 0:
        print(f"./test: not root, so not installed: {' '.join(missing_packages())}", file=sys.stderr)
        return
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    apt("update")
    wanted = missing_packages()  # again: what apt knows has changed
    print(f"./test: installing {' '.join(wanted)}", flush=True)
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    try:
        if not apt("install", "--no-install-recommends", *wanted):
            for package in wanted:  # one that is not to be had must not cost us the others
                apt("install", "--no-install-recommends", package)
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)


def run_checks() -> list[str]:
    """Run the static checks; the command lines of those that failed."""
    failed = []
    for check in CHECKS:
        print(f"./test: {' '.join(check)}", flush=True)
        command = [environment.VENV / "bin" / check[0], *check[1:]]
        if command[0].read_bytes().startswith(b"#!"):  # its first line names where the checkout was once
            command.insert(0, environment.PYTHON)
        if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
            failed.append(" ".join(check))
    return failed


def checked(made: Future[None]) -> list[str]:
    """Run the static checks once the environment is there; what failed."""
    return run_checks() if made.exception() is None else []


def compile_tests(made: Future[None]) -> None:
    """Let pytest collect once, so that what it compiles lies there for rows that begin together."""
    if made.exception() is None:
        collect = [environment.PYTHON, "-m", "pytest", "--collect-only", "-q"]
        subprocess.run(collect, cwd=ROOT, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def expand(argument: str) -> str:
    """`unit` means `tests/unit`; everything else is pytest's."""
    folder = ROOT / "tests" / argument
    return f"tests/{argument}" if argument and not argument.startswith("-") and folder.exists() else argument


def fetch(made: Future[None]) -> None:
    """Get what the tests need from outside, while there is one. Two runs at once wait for one another.

    Args:
        made: the environment, which some of it needs.
    """
    with (machine.cache() / "fetch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        started = [
            _started(sys.executable, "tools", f"import roots; roots.{call}")
            for call in ("small()", *(f"bootable({release!r})" for release in roots.RELEASES))
        ]
        for what, get in (("sshd", sshd.program), ("emulated machine", machine.kernel)):
            try:
                get()
            except machine.NoMachine as error:
                print(f"./test: no {what}: {error}", file=sys.stderr)
        if made.exception() is None:
            for name in ("docker_py", "packages"):
                code = f"from support import {name}; {name}.fetch()"
                started.append(_started(environment.PYTHON, "tests", code))
        for process in started:
            process.wait()


def _started(python: str | Path, folder: str, code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([python, "-c", f"import sys; sys.path.insert(0, {folder!r}); {code}"], cwd=ROOT)


def side_by_side() -> list[str]:
    """The options that make pytest run files of tests beside one another, each row in namespaces of its own.

    Most tests wait for something else than a processor, and two rows wait for the emulated machines: so two
    rows more than there are processors.
    """
    rows = (os.cpu_count() or 1) + 2
    program = [str(environment.PYTHON)]
    if os.geteuid() == 0:
        program = [sys.executable, str(ROOT / "tools" / "isolation.py"), *program]
    worker = f"popen//python={shlex.join(program)}"
    return ["--dist=loadfile", "--no-loadscope-reorder", *["--tx", worker] * rows]


def once_more(failed: Path) -> int:
    """Run the few tests that failed beside others again, alone: a busy machine is slow, a defect stays one.

    Args:
        failed: their ids, a line each, where no more than tests failed.

    Returns:
        pytest's exit status; 1 when there were too many.
    """
    ids = failed.read_text().splitlines() if failed.exists() else []
    if not 0 < len(ids) <= MOST_AGAIN:
        return 1
    print("./test: these failed beside others, and run again alone; each deserves a look:", flush=True)
    print("\n".join(f"    {one}" for one in ids), flush=True)
    del os.environ["SAMPAN_FAILED_TESTS"]
    program = [str(environment.PYTHON), "-m", "pytest", *ids]
    if os.geteuid() == 0:
        program = [sys.executable, str(ROOT / "tools" / "isolation.py"), *program]
    return subprocess.run(program, check=False).returncode


def main() -> int:
    """All of it; the exit status is pytest's, or 1 when only a check failed."""
    os.chdir(ROOT)
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    # What pytest compiles of the tests is kept: on an emulated machine that takes half a minute.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    arguments = [expand(argument) for argument in sys.argv[1:]]
    everything = not arguments
    try:
        environment.ensure_venv_module()  # by apt, which is used by one at a time
    except environment.SetupError as error:
        print(f"./test: {error}", file=sys.stderr)
        return 1
    with ThreadPoolExecutor(3) as beside:  # what is fetched waits for others most of the time
        made = beside.submit(environment.ensure, dev=True)
        checking = beside.submit(checked, made) if everything else None
        if everything:
            beside.submit(compile_tests, made)
        install_packages()
        if os.geteuid() == 0:
            leftovers.sweep()
            fetch(made)
        failed = checking.result() if checking is not None else []
    if error := made.exception():
        if not isinstance(error, environment.SetupError):
            raise error
        print(f"./test: {error}", file=sys.stderr)
        return 1
    os.environ["SAMPAN_FAILED_CHECKS"] = "\n".join(failed)
    if everything:
        arguments = side_by_side()
    elif os.geteuid() == 0:
        isolation.isolate()
    command = [environment.PYTHON, "-m", "pytest", *arguments]
    # The name is short: sockets below it may have paths of 107 bytes.
    with tempfile.TemporaryDirectory(prefix=f"spt-{os.getpid()}-", ignore_cleanup_errors=True) as scratch:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = scratch  # pytest's own is shared by all runs of a user
        if everything:
            os.environ["SAMPAN_FAILED_TESTS"] = f"{scratch}/failed"
        status = subprocess.run([str(part) for part in command], check=False).returncode
        if everything and status == 1:
            status = once_more(Path(scratch, "failed"))
    return status or bool(failed)


if __name__ == "__main__":
    sys.exit(main())
