"""Control groups, seccomp, capabilities and device programs against the running kernel."""

import errno
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sampan.engine.spec.seccomp import default_profile
from sampan.linux import capabilities, cgroups, device_filter, seccomp, syscalls
from sampan.linux.cgroups.layout import Layout

pytestmark = pytest.mark.root


def in_child(work) -> str:
    """What `work` returns in a forked child, or how the child died."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.write(theirs, repr(work()).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(theirs)
    with open(ours, "rb") as file:
        text = file.read().decode()
    _, status = os.waitpid(pid, 0)
    return text if status == 0 else f"status {status}"


def sleeper() -> int:
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                time.sleep(60)
        finally:
            os._exit(0)
    return pid


def attempt(call, *arguments) -> str:
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"


LAYOUTS = {"this machine's": None}
if cgroups.detect().version == 1 and cgroups.detect().unified is not None:
    LAYOUTS["v2 without controllers"] = Layout(2, cgroups.detect().unified)


@pytest.fixture(params=list(LAYOUTS))
def manager(request):
    parent = f"/sampan-test-{os.getpid()}"
    found = cgroups.manager_for(f"{parent}/one", LAYOUTS[request.param])
    yield found
    found.kill_all()
    found.remove()
    cgroups.manager_for(parent, LAYOUTS[request.param]).remove()
    assert not found.exists()


def test_processes_are_moved_frozen_and_killed(manager):
    assert manager.create(None) == []
    manager.create(None)  # again: nothing happens
    pids = [sleeper() for _ in range(3)]
    for pid in pids:
        manager.add(pid)
    assert sorted(manager.pids()) == sorted(pids)
    manager.freeze()
    manager.thaw()
    manager.freeze()
    manager.kill_all()
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [signal.SIGKILL] * 3
    manager.kill_all()
    assert manager.pids() == []
    assert manager.oom_kills() == 0
    manager.remove()
    manager.remove()


def test_removal_takes_the_groups_below_too(manager):
    manager.create(None)
    for path in set(manager.paths().values()):
        os.makedirs(f"{path}/below/deeper")
    manager.remove()
    assert not manager.exists()


def test_removal_gives_up_in_bounded_time_and_says_why(manager, monkeypatch):
    from sampan.linux.cgroups import manager as module

    monkeypatch.setattr(module, "_PATIENCE_S", 0.05)
    manager.create(None)
    pid = sleeper()
    manager.add(pid)
    with pytest.raises(OSError, match="still has processes"):
        manager.remove()
    manager.kill_all()
    os.waitpid(pid, 0)


def test_many_are_made_at_once_below_a_new_parent():
    parent = f"/sampan-test-crowd-{os.getpid()}"
    managers = [cgroups.manager_for(f"{parent}/{number}") for number in range(12)]
    try:
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda manager: manager.create({"pids": {"limit": 9}}), managers))
        for manager in managers:
            assert in_child(lambda manager=manager: manager.add(0)) == "None"
    finally:
        for manager in managers:
            manager.remove()
        cgroups.manager_for(parent).remove()


@pytest.mark.skipif(not cgroups.features().memory, reason="needs the cgroup controller memory")
def test_limits_hold():
    manager = cgroups.manager_for(f"/sampan-test-limits-{os.getpid()}")
    limits = {"memory": {"limit": 32 << 20, "swap": 32 << 20}, "pids": {"limit": 4}}
    try:
        assert manager.create({**limits, "cpu": {"quota": 20000, "period": 100000, "shares": 512}}) == []

        def eat():
            manager.add(0)
            return len(bytearray(100 << 20))

        assert in_child(eat) == f"status {signal.SIGKILL}"
        assert manager.oom_kills() == 1
        assert manager.stats().memory_limit_bytes == 32 << 20

        def breed():
            manager.add(0)
            children = []
            try:
                while len(children) < 20:
                    children.append(sleeper())
            except BlockingIOError:
                return len(children)
            finally:
                for child in children:
                    os.kill(child, signal.SIGKILL)
            return -1

        assert in_child(breed) == "3"
        manager.update({"memory": {"limit": 64 << 20, "swap": 64 << 20}, "pids": {"limit": -1}})
        manager.update({"memory": {"limit": 16 << 20, "swap": 16 << 20}})
        assert (manager.stats().memory_limit_bytes, manager.stats().pids_limit) == (16 << 20, None)
    finally:
        manager.kill_all()
        manager.remove()


DENY_ALL = [{"allow": False, "access": "rwm"}]


def opened(path: str) -> str:
    return attempt(lambda: os.close(os.open(path, os.O_RDWR)))


def test_devices_are_refused_but_for_the_default_ones():
    manager = cgroups.manager_for(f"/sampan-test-devices-{os.getpid()}")
    mice = {"allow": True, "type": "c", "major": 10, "minor": 237, "access": "rw"}  # loop-control
    try:
        for rules, wanted in ((DENY_ALL, "EPERM"), ([*DENY_ALL, mice], "done")):
            manager.create({"devices": rules})

            def look():
                manager.add(0)
                return opened("/dev/null"), opened("/dev/loop-control")

            assert in_child(look) in (repr(("done", wanted)), repr(("done", "ENOENT")))
            manager.remove()
    finally:
        manager.remove()


@pytest.mark.skipif(cgroups.detect().unified is None, reason="needs cgroup v2 mounted")
def test_device_programs_replace_each_other():
    manager = cgroups.manager_for(f"/sampan-test-bpf-{os.getpid()}", Layout(2, cgroups.detect().unified))
    try:
        manager.create({"devices": DENY_ALL})
        fd = manager.open_dirfd()
        zero = {"allow": False, "type": "c", "major": 1, "minor": 5, "access": "w"}
        device_filter.attach(fd, [*DENY_ALL, zero])
        programs = device_filter.attached(fd)
        assert len(programs) == 1
        for number in (*programs, fd):
            os.close(number)

        def look():
            manager.add(0)
            read = attempt(lambda: os.close(os.open("/dev/zero", os.O_RDONLY)))
            return opened("/dev/null"), opened("/dev/zero"), read

        assert in_child(look) == repr(("done", "EPERM", "done"))
    finally:
        manager.remove()


def test_the_default_seccomp_profile_is_enforced():
    program = seccomp.compile_filter(default_profile(capabilities.DEFAULT))

    def try_calls():
        seccomp.load(program)
        unsharing = attempt(syscalls.unshare, syscalls.CLONE_NEWUTS)
        mounting = attempt(syscalls.mount, "none", "/mnt", "tmpfs")
        clone3 = attempt(lambda: syscalls.syscall("clone3", syscalls.SYS_CLONE3, None, 0))
        vsock = attempt(lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))
        inet = attempt(lambda: socket.socket().close())
        newest = attempt(lambda: syscalls.syscall("future", 1000))
        return unsharing, mounting, clone3, vsock, inet, newest

    assert in_child(try_calls) == repr(("EPERM", "EPERM", "ENOSYS", "EPERM", "done", "ENOSYS"))


def test_a_filter_can_kill():
    program = seccomp.compile_filter(
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["uname"], "action": "SCMP_ACT_KILL_PROCESS"}],
        }
    )

    def call():
        seccomp.load(program, seccomp.FLAG_SPEC_ALLOW)
        return os.uname()

    status = int(in_child(call).removeprefix("status "))
    assert os.WTERMSIG(status) == signal.SIGSYS


def sets() -> dict[str, int]:
    with open("/proc/self/status") as file:
        lines = dict(line.rstrip().split(":\t", 1) for line in file if line.startswith("Cap"))
    return {name: int(value, 16) for name, value in lines.items()}


def test_capabilities_survive_a_change_of_user_only_as_told():
    held = capabilities.bounding()
    some = [name for name in ("CAP_NET_BIND_SERVICE", "CAP_KILL", "CAP_CHOWN") if name in held]

    def change():
        capabilities.drop_bounding(some)
        syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        capabilities.set_process(some[:2], some, some[:1])
        capabilities.raise_ambient(some)
        return sets()

    mask = capabilities.mask
    assert in_child(change) == repr(
        {
            "CapInh": mask(some[:1]), "CapPrm": mask(some), "CapEff": mask(some[:2]), "CapBnd": mask(some),
            "CapAmb": mask(some[:1]),
        }
    )  # fmt: skip


def test_a_dropped_capability_never_comes_back():
    def escape():
        capabilities.drop_bounding(capabilities.DEFAULT)
        capabilities.set_process(capabilities.DEFAULT, capabilities.DEFAULT, ())
        os.setresuid(0, 0, 0)
        try:
            capabilities.set_process(capabilities.ALL, capabilities.ALL, capabilities.ALL)
        except OSError:
            pass
        os.execv(
            "/bin/sh", ["sh", "-c", "grep CapEff /proc/self/status >&3; mount -t tmpfs none /mnt 2>&3; :"]
        )

    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(theirs, 3)
        try:
            escape()
        finally:
            os._exit(1)
    os.close(theirs)
    with open(ours) as file:
        text = file.read()
    os.waitpid(pid, 0)
    assert int(text.split()[1], 16) == capabilities.mask(capabilities.DEFAULT)
    assert "permission denied" in text or "not permitted" in text
