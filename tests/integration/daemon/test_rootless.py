"""A daemon without root: an ordinary user's, on a machine of its own, looked at from outside as root.

The user is made for the tests, in a mount and a network namespace with a /run of their own; the code is a
copy that everybody may read, run by the system's Python.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.api import Api
from support.engine import copy_source
from support.images import busybox_tar
from support.machine import alive, eventually
from support.needs import program

PYTHON = f"/usr/bin/python3.{sys.version_info.minor}"
pytestmark = [
    program("unshare", "util-linux"),
    program("newuidmap", "uidmap"),
    program("slirp4netns", "slirp4netns"),
    pytest.mark.skipif(not Path(PYTHON).exists(), reason=f"needs {PYTHON}, which other users may run"),
]
FIRST, COUNT = 400000, 65536
SKIPPER, STOWAWAY = 4252, 4253  # the second has no subordinate ids
OUTSIDE = "192.0.2.1"
SET_UP = """
set -e
mount --make-rprivate /
while umount -l /sys 2>/dev/null; do :; done
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for group in $5 $5/session; do
    mkdir /sys/fs/cgroup/$group
    for file in . cgroup.procs cgroup.subtree_control; do chown 4252 /sys/fs/cgroup/$group/$file; done
done
mount -t tmpfs run /run
ip link set lo up
ip address add $4/32 dev lo
for file in passwd group subuid subgid; do cp /etc/$file /run/$file 2>/dev/null || true; done
user() {
    mkdir -p $2/$1 /run/user/$3 && chown $3:$3 $2/$1 /run/user/$3 && chmod 700 $2/$1 /run/user/$3
    echo "$1:x:$3:$3::$2/$1:/bin/sh" >>/run/passwd
    echo "$1:x:$3:" >>/run/group
}
user skipper $1 4252
user stowaway $1 4253
for file in subuid subgid; do echo "skipper:$2" >>/run/$file; done
for file in passwd group subuid subgid; do touch /etc/$file; mount --bind /run/$file /etc/$file; done
for node in net/tun:200 fuse:229; do
    mknod -m 666 /run/node-${node#*:} c 10 ${node#*:}
    [ ! -e /dev/${node%:*} ] || mount --bind /run/node-${node#*:} /dev/${node%:*}
done
mkdir /run/site && mount --bind $3 /run/site
echo ready
exec sleep 1000
"""


class Machine:
    """A machine with users who are not root."""

    def __init__(self, homes: Path) -> None:
        self.homes = homes
        self.cgroup = self.session = f"sampan-given-{os.getpid()}"  # the skipper's, for a first daemon
        words = [str(homes), f"{FIRST}:{COUNT}", sysconfig.get_path("purelib"), OUTSIDE, self.cgroup]
        command = ["unshare", "--mount", "--net", "sh", "-c", SET_UP, "sh", *words]
        self.holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.holder.stdout is not None and self.holder.stdout.readline() == "ready\n"
        os.setxattr(self.path(f"/sys/fs/cgroup/{self.cgroup}"), "user.delegate", b"1")
        copy_source(self.path("/run/src"))

    def path(self, path: str) -> Path:
        """A path of the machine's, as seen from here."""
        return Path(f"/proc/{self.holder.pid}/root{path}")

    def argv(self, *words: str, user: str = "") -> list[str]:
        """A command line in there, as root or as a user, who has no right but being that."""
        enter = ["nsenter", "--target", str(self.holder.pid), "--mount", "--net", "--wd=/"]
        if user:
            if user == "skipper":
                enter += ["sh", "-c", f'echo 0 >/sys/fs/cgroup/{self.session}/cgroup.procs; exec "$@"', "sh"]
            enter += ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
            enter += ["--inh-caps=-all", "--ambient-caps=-all"]
        return [*enter, *words]

    def environment(self, user: str) -> dict[str, str]:
        """What a login gives a user."""
        uid = STOWAWAY if user == "stowaway" else SKIPPER
        return {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.homes / user),
            "XDG_RUNTIME_DIR": f"/run/user/{uid}",
            "PYTHONPATH": "/run/src:/run/site",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
        }

    def run(self, *words: str, user: str = "", stdin: bytes = b"") -> tuple[int, str, str]:
        """Run a command: exit code, output, errors."""
        done = subprocess.run(
            self.argv(*words, user=user),
            input=stdin,
            capture_output=True,
            env=self.environment(user),
            timeout=90,
            check=False,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def sampan(self, *words: str, user: str = "skipper", stdin: bytes = b"") -> tuple[int, str, str]:
        """Run our command as a user."""
        return self.run(PYTHON, "-m", "sampan.cli", *words, user=user, stdin=stdin)

    def __call__(self, *words: str, stdin: bytes = b"") -> str:
        """The output of our command as the skipper, which succeeds."""
        code, out, err = self.sampan(*words, stdin=stdin)
        assert code == 0, err
        return out.strip()

    def ask(
        self, method: str, target: str, body: dict[str, object] | None = None, user: int = SKIPPER
    ) -> Any:
        """What the API of a user's daemon says to a request that succeeds; without a process for each."""
        answer = Api(str(self.path(f"/run/user/{user}/sampan.sock")))(method, target, body)
        assert answer.status < 300, answer.body
        return answer.json() if answer.body[:1] in (b"{", b"[") else None

    def process(self, container: str) -> str:
        """The first process of a container of the skipper's."""
        return str(self.ask("GET", f"/containers/{container}/json")["State"]["Pid"])

    def pid(self, name: str, user: int = SKIPPER) -> int:
        """The daemon, by its pid file, or a process of the user's by its command's name; 0 for none."""
        if name == "sampand":
            try:
                pid = int(self.path(f"/run/user/{user}/sampan/sampand.pid").read_text())
            except FileNotFoundError:
                return 0
            return pid if alive(pid) else 0
        return next((pid for pid, comm in processes(user) if comm == name), 0)

    def end(self) -> None:
        """Take it down."""
        for user in (SKIPPER, STOWAWAY):
            if pid := self.pid("sampand", user):
                os.kill(pid, signal.SIGTERM)
                eventually(lambda: not alive(pid), 30, what="the daemon ends")
            for one, _ in processes(user):
                os.kill(one, signal.SIGKILL)
        given = self.path(f"/sys/fs/cgroup/{self.cgroup}")
        eventually(lambda: "populated 0" in (given / "cgroup.events").read_text(), what="the cgroup is empty")
        for directory, _, _ in os.walk(given, topdown=False):
            os.rmdir(directory)
        self.holder.kill()
        self.holder.communicate()


def processes(user: int) -> list[tuple[int, str]]:
    """The processes of a user and of the subordinate ids: pid and command."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = dict(line.split(":\t", 1) for line in (entry / "status").read_text().splitlines())
        except (OSError, ValueError):
            continue
        uid = int(fields["Uid"].split()[0])
        theirs = uid == user or (user == SKIPPER and FIRST <= uid < FIRST + COUNT)
        if theirs and not fields["State"].startswith("Z"):
            found.append((int(entry.name), fields["Name"]))
    return found


def roots_tar() -> bytes:
    """The root file system of an image in which everything is root's."""
    program = shutil.which("busybox")
    assert program is not None
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(program, "bin/busybox", filter=lambda entry: entry.replace(uid=0, gid=0, deep=False))
    return out.getvalue()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    homes = tmp_path_factory.mktemp("homes")
    for directory in (homes, *homes.parents):  # pytest makes them for root alone
        if directory.stat().st_mode & 0o001 == 0 and directory.is_relative_to("/tmp"):
            directory.chmod(0o711)
    made = Machine(homes)
    try:
        made("import", "-", "box", stdin=busybox_tar())
        made.session += "/session"
        yield made
    finally:
        made.end()


@pytest.fixture
def web(machine: Machine) -> Iterator[str]:
    """A container that says hello on the machine's port 8088."""
    serve = "echo hello >/index.html; exec httpd -f -p 80 -h /"
    machine("run", "-d", "--name", "web", "-p", "8088:80", "box", "sh", "-c", serve)
    eventually(lambda: fetched(machine) == "hello", what="the port answers")
    yield "web"
    machine.ask("DELETE", "/containers/web?force=1")


def fetched(machine: Machine) -> str:
    """What the machine's port 8088 says."""
    ask = b"GET / HTTP/1.0\r\n\r\n"
    said = machine.run("busybox", "nc", "-w", "5", "127.0.0.1", "8088", stdin=ask)[1]
    return said.rpartition("\r\n\r\n")[2].strip()


def test_it_is_the_users_own(machine: Machine) -> None:
    assert "Ahoy!" in machine("run", "--rm", "hello-world")
    info = machine.ask("GET", "/info")
    assert "name=rootless" in info["SecurityOptions"]
    assert info["DockerRootDir"] == str(machine.homes / "skipper/.local/share/sampan")
    assert info["Driver"] == "overlay2"
    assert ["userxattr", "true"] in info["DriverStatus"]
    assert (info["CgroupDriver"], info["CgroupVersion"]) == ("cgroupfs", "2"), info["Warnings"]
    socket = machine.path(f"/run/user/{SKIPPER}/sampan.sock").stat()
    assert (socket.st_uid, stat.S_IMODE(socket.st_mode)) == (SKIPPER, 0o600)
    pid = machine.pid("sampand")
    fields = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert fields["Uid"].split() == [str(SKIPPER)] * 4
    maps = Path(f"/proc/{pid}/uid_map").read_text().split()
    assert maps == ["0", str(SKIPPER), "1", "1", str(FIRST), str(COUNT)]  # the machine's root is not there
    for kind in ("user", "mnt", "net"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/{machine.holder.pid}/ns/{kind}")
    code = """if True:
        import asyncio, sampan
        async def main():
            async with sampan.connect(start=False) as s:
                print((await s.info())["DockerRootDir"])
        asyncio.run(main())
    """
    assert machine.run(PYTHON, "-c", code, user="skipper")[1].strip() == info["DockerRootDir"]


def test_whose_the_files_are(machine: Machine) -> None:
    home = machine.homes / "skipper"
    given = home / "given"
    given.mkdir()
    os.chown(given, SKIPPER, SKIPPER)
    script = "touch /given/roots /vol/x && mkdir /given/theirs && chown 1000:1000 /given/theirs && id -u"
    assert machine("run", "--rm", "-v", f"{given}:/given", "-v", "vol:/vol", "box", "sh", "-c", script) == "0"
    assert (given / "roots").stat().st_uid == SKIPPER
    assert (given / "theirs").stat().st_uid == FIRST + 999
    assert (home / ".local/share/sampan/volumes/vol/_data/x").stat().st_uid == SKIPPER
    machine.ask("DELETE", "/volumes/vol")


def test_layers_hide_what_is_below(machine: Machine) -> None:
    """Whiteouts and opaque directories, in attributes that a user namespace may write."""
    first = "mkdir -p /d/e /g && touch /d/old /d/e/old /g/one && chown 33:33 /g/one"
    machine("run", "--name", "one", "box", "sh", "-c", first)
    machine.ask("POST", "/commit?container=one&repo=first")
    machine("run", "--name", "two", "first", "sh", "-c", "rm -r /d /g/one && mkdir /d && touch /d/new")
    assert sorted(machine("diff", "two").splitlines()) == [
        "A /d/new",
        "C /d",
        "C /g",
        "D /d/e",
        "D /d/old",
        "D /g/one",
    ]
    machine.ask("POST", "/commit?container=two&repo=second")
    assert machine("run", "--rm", "second", "sh", "-c", "ls /d /g; stat -c %u /d") == "/d:\nnew\n\n/g:\n0"
    assert machine("run", "--rm", "first", "stat", "-c", "%u:%g", "/g/one") == "33:33"
    saved = machine.homes / "skipper/second.tar"
    machine("save", "-o", str(saved), "second")
    for target in ("containers/one", "containers/two", "images/second", "images/first"):
        machine.ask("DELETE", f"/{target}")
    machine("load", "-i", str(saved))
    assert machine("run", "--rm", "second", "sh", "-c", "ls /d /g") == "/d:\nnew\n\n/g:"
    machine.ask("DELETE", "/images/second")


def test_what_is_done_in_containers(machine: Machine, web: str) -> None:
    assert machine("exec", "-u", "1000:1000", web, "id", "-u") == "1000"
    for user, what in ((f"{COUNT + 1}:0", f"user {COUNT + 1}"), (f"0:{COUNT + 1}", f"group {COUNT + 1}")):
        code, said, _ = machine.sampan("exec", "-u", user, web, "id")  # in the stream, as Docker does
        assert code == 126 and f"{what} does not exist here" in said, said
        assert f"/etc/sub{what[0]}id has it, now {COUNT};" in said
    assert machine.sampan("exec", web, "sh", "-c", "exit 3")[0] == 3
    source = machine.homes / "skipper/note"
    source.write_text("ahoy")
    machine("cp", str(source), f"{web}:/note")
    assert machine("exec", web, "stat", "-c", "%u", "/note") == "0"
    assert "httpd" in machine("top", web)
    assert json.loads(machine("stats", "--no-stream", "--format", "json", web))["NetIO"] != "0B / 0B"


def test_cgroups_below_the_one_that_was_given(machine: Machine, web: str) -> None:
    """Without controllers where those are at cgroup v1; machines/test_systemd.py has them from systemd."""
    given = machine.path(f"/sys/fs/cgroup/{machine.cgroup}")
    place = given / "sampan" / machine.ask("GET", f"/containers/{web}/json")["Id"]
    assert (place / "cgroup.procs").read_text().split()[0] == machine.process(web)
    daemon = given / "daemon/cgroup.procs"
    assert str(machine.pid("sampand")) in daemon.read_text().split()
    assert str(machine.pid("sampan-keeper")) in (given / "keeper/cgroup.procs").read_text().split()
    assert machine("exec", web, "cat", "/proc/self/cgroup").splitlines()[-1] == "0::/"
    machine.ask("POST", f"/containers/{web}/pause")
    assert "frozen 1" in (place / "cgroup.events").read_text()
    machine.ask("POST", f"/containers/{web}/unpause")
    assert "frozen 0" in (place / "cgroup.events").read_text()
    if "memory" not in (given / "cgroup.controllers").read_text().split():
        code, _, said = machine.sampan("run", "--rm", "-m", "50m", "--pids-limit", "50", "box", "true")
        assert (code, said.count("discarded")) == (0, 2), said
        warnings = machine.ask("GET", "/info")["Warnings"]
        assert sum("Delegate=cpu cpuset io memory pids" in text for text in warnings) == 1
    above = ("--cgroup-parent", "/own", "--cgroupns", "host")
    shown = machine("run", "--rm", *above, "box", "cat", "/proc/self/cgroup").splitlines()
    assert shown[-1].startswith("0::/own/")


def test_networks_and_the_way_out(machine: Machine, web: str) -> None:
    machine.ask("POST", "/networks/create", {"Name": "deck"})
    machine.ask("POST", "/networks/deck/connect", {"Container": web})
    assert (
        machine("run", "--rm", "--network", "deck", "box", "wget", "-q", "-O", "-", "http://web/") == "hello"
    )
    refused = machine.sampan("run", "--rm", "-p", "81:80", "box", "true")
    assert refused[0] == 125
    assert "sudo sysctl -w net.ipv4.ip_unprivileged_port_start=81" in refused[2]
    machine.ask("POST", "/networks/deck/disconnect", {"Container": web})
    machine.ask("DELETE", "/networks/deck")
    serve = ("busybox", "httpd", "-f", "-p", f"{OUTSIDE}:8099", "-h", str(machine.homes))
    (machine.homes / "far").write_text("from afar")
    with subprocess.Popen(machine.argv(*serve)) as server:
        fetch = ("run", "--rm", "box", "timeout", "20", "wget", "-q", "-O", "-", f"http://{OUTSIDE}:8099/far")
        eventually(
            lambda: machine.sampan(*fetch)[1] == "from afar", 60, what="a container reaches the outside"
        )
        server.kill()


def test_registries_of_the_machine(machine: Machine) -> None:
    """The daemon's own connections go out by the machine's network, its loopback included."""
    serve = (PYTHON, "-m", "sampan.cli", "registry", "serve", "--listen", "127.0.0.1:5081")
    root = str(machine.homes / "skipper/registry")
    with subprocess.Popen(
        machine.argv(*serve, "--root", root, user="skipper"), env=machine.environment("skipper")
    ) as server:
        machine.ask("POST", "/images/box/tag?repo=127.0.0.1:5081/box")
        eventually(lambda: machine.sampan("push", "127.0.0.1:5081/box")[0] == 0, 60, what="the push succeeds")
        machine.ask("DELETE", "/images/127.0.0.1:5081/box")
        machine("pull", "127.0.0.1:5081/box")
        machine.ask("DELETE", "/images/127.0.0.1:5081/box")
        server.terminate()


def test_nobody_elses(machine: Machine) -> None:
    """Attacks: root of a container, with all that a user may give it, is the user and no more."""
    secret = machine.homes / "secret"
    secret.write_text("the owner's")
    secret.chmod(0o600)
    tries = (
        ("cat", str(secret)),
        ("chown", "0:0", str(secret)),
        ("mknod", "/disk", "b", "7", "0"),
        ("ls", "/proc/1/root/"),
        ("nsenter", "-t", "1", "-m", "true"),
        ("kill", "-0", "1"),
        ("sysctl", "-w", "kernel.hostname=taken"),
        ("mount", "-t", "ext4", "/dev/loop0", "/mnt"),
    )
    script = "".join(f"{' '.join(words)} 2>/dev/null && echo did: {words[0]}\n" for words in tries)
    script += f"stat -c %u {secret}\n"
    options = ("--privileged", "--pid", "host", "--network", "host", "-v", f"{machine.homes}:{machine.homes}")
    assert machine("run", "--rm", *options, "box", "sh", "-c", script) == "65534"
    code, _, said = machine.run(
        PYTHON, "-m", "sampan.cli", "-H", f"unix:///run/user/{SKIPPER}/sampan.sock", "ps", user="stowaway"
    )
    assert code == 1 and "permission denied" in said


def test_processes_may_die_in_any_order(machine: Machine, web: str) -> None:
    def kill(*names: str) -> None:
        pids = [machine.pid(name) for name in names]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(map(alive, pids)), what=f"{names} die")

    pid = machine.process(web)
    kill("sampand")
    assert fetched(machine) == "hello"
    assert machine("inspect", "-f", "{{.State.Pid}}", web) == pid  # by a daemon that this command has started
    before, uplink = machine.pid("sampand"), machine.pid("slirp4netns")
    kill("sampan-keeper")
    eventually(lambda: machine.pid("slirp4netns") not in (0, uplink), 30, what="its successor leads out")
    assert fetched(machine) == "hello"
    machine("run", "-d", "--name", "late", "-p", "8086:80", "box", "sleep", "90")  # a socket from outside
    machine.ask("DELETE", "/containers/late?force=1")
    assert machine.pid("sampand") == before
    before, uplink = machine.pid("sampand"), machine.pid("slirp4netns")
    kill("sampan-standby", "sampan-keeper")
    eventually(lambda: not alive(before) and not alive(uplink), 30, what="daemon and way out end without it")
    assert fetched(machine) == "hello"
    assert machine("exec", web, "cat", "/index.html") == "hello"
    assert machine.process(web) == pid
    old = machine.pid("slirp4netns")
    kill("slirp4netns")
    eventually(lambda: machine.pid("slirp4netns") not in (0, old), 30, what="the way out is begun again")
    assert (
        machine("run", "--rm", "--network", "host", "box", "cat", "/sys/class/net/sampan0/operstate") == "up"
    )


def test_without_subordinate_ids_root_is_alone(machine: Machine) -> None:
    """And with the program fuse-overlayfs, as where the kernel has overlays for root alone."""
    if fuse := shutil.which("fuse-overlayfs") is not None:
        config = machine.homes / "stowaway/.config/sampan/daemon.json"
        config.parent.mkdir(parents=True)
        config.write_text('{"storage-driver": "fuse-overlayfs"}')
    code, _, said = machine.sampan("import", "-", "box", user="stowaway", stdin=busybox_tar())
    assert code == 1
    assert "Starting a daemon of your own" in said
    assert "home/alice/: its owner 1000:1000 does not exist here" in said
    assert machine.sampan("import", "-", "box", user="stowaway", stdin=roots_tar())[0] == 0
    told = machine.sampan("info", user="stowaway")
    assert "usermod --add-subuids" in told[2] and "loginctl enable-linger stowaway" in told[2]
    assert ("Storage Driver: fuse-overlayfs" in told[1]) == fuse
    script = "busybox mkdir -p /d/e && busybox touch /d/old /d/e/old /bin/gone"
    again = "busybox rm -r /d /bin/gone && busybox mkdir /d && busybox touch /d/new"
    for name, image, text in (("one", "box", script), ("two", "first", again)):
        code, _, said = machine.sampan(
            "run", "--name", name, image, "busybox", "sh", "-c", text, user="stowaway"
        )
        assert code == 0, said
        result = "first" if name == "one" else "second"
        machine.ask("POST", f"/commit?container={name}&repo={result}", user=STOWAWAY)
    shown = machine.sampan("run", "--rm", "second", "busybox", "ls", "/d", "/bin", user="stowaway")
    assert shown[1] == "/bin:\nbusybox\n\n/d:\nnew\n", shown
    run = ("run", "--rm", "-t", "-p", "8087:80", "box", "busybox", "id", "-u")
    code, out, said = machine.sampan(*run, user="stowaway")
    assert (code, out) == (0, "0\r\n"), said
    assert (
        machine.sampan("run", "-d", "--name", "on", "box", "busybox", "sleep", "90", user="stowaway")[0] == 0
    )
    assert machine.sampan("exec", "on", "busybox", "id", "-u", user="stowaway")[:2] == (0, "0\n")
    refused = machine.sampan("pause", "on", user="stowaway")
    assert refused[0] == 1 and "nothing can be paused" in refused[2]
    assert machine.sampan("exec", "on", "busybox", "ls", "/sys/fs/cgroup", user="stowaway")[1] == ""
    limited = machine.ask("POST", "/containers/on/update", {"Memory": 50 << 20}, STOWAWAY)
    assert "does not support memory limit" in limited["Warnings"][0]
    machine.ask("DELETE", "/containers/on?force=1", user=STOWAWAY)
    code, _, said = machine.sampan("run", "--rm", "-u", "33", "box", "busybox", user="stowaway")
    assert (code, "user 33 does not exist here" in said) == (125, True), said


def test_nothing_is_left(machine: Machine) -> None:
    """Last: with its containers gone and the daemon stopped, nothing of the user's runs on."""
    for user, uid in (("skipper", SKIPPER), ("stowaway", STOWAWAY)):
        assert machine.sampan("ps", "-q", user=user)[:2] == (0, "")
        os.kill(machine.pid("sampand", uid), signal.SIGTERM)
        eventually(lambda: not processes(uid), 30, what="all have ended")  # noqa: B023
