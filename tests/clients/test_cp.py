"""`cp` and `diff` with both command lines, on running, paused, created and stopped containers."""

from __future__ import annotations

import base64
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cli import Cli
from support.engine import Daemon, Engine
from support.machine import eventually

Names = Callable[[], str]
MAKE = """
    mkdir -p /d/sub /empty && echo one > /d/f && echo two > /d/sub/g && ln -s d /l && ln -s /d/f /lf
    ln -s /nowhere/x /dangling && mkfifo /fifo && ln -s ../../../etc/passwd /up && chmod 4750 /d/f"""


@pytest.fixture(params=["running", "paused", "created", "stopped"])
def container(request: pytest.FixtureRequest, engine: Engine, busybox: str, name: Names) -> str:
    """A container with the files of MAKE, in each state; the created one has them from an image."""
    one = name()
    script = f"{MAKE}; echo ready; exec sleep 600"
    engine.docker("run", "-d", "--name", one, busybox, "sh", "-c", script)
    eventually(lambda: engine.docker("logs", one).out == "ready\n", what="the files are there")
    if request.param == "paused":
        engine.docker("pause", one)
    elif request.param == "stopped":
        engine.docker("stop", "-t", "0", one)
    elif request.param == "created":
        engine.docker("commit", one, f"cp-{one}")
        request.addfinalizer(lambda: engine.docker("rmi", "-f", f"cp-{one}"))
        again = name()
        engine.docker("create", "--name", again, f"cp-{one}", "sleep", "600")
        request.addfinalizer(lambda: engine.docker("rm", "-f", again))
        return again
    return one


def tree(path: Path) -> dict[str, str]:
    """All below a directory: what each file holds, where each link leads."""
    return {
        str(file.relative_to(path)): os.readlink(file)
        if file.is_symlink()
        else file.read_text()
        if file.is_file()
        else "/"
        for file in path.rglob("*")
    }


@pytest.mark.dealt
def test_out_of_a_container(cli: Cli, container: str, tmp_path: Path) -> None:
    def copy(source: str, target: str, *flags: str) -> None:
        cli("cp", *flags, f"{container}:{source}", str(tmp_path / target))

    copy("/d", "missing")
    assert tree(tmp_path / "missing") == {"f": "one\n", "sub": "/", "sub/g": "two\n"}
    (tmp_path / "there").mkdir()
    copy("/d", "there")
    copy("/d/.", "there")
    assert tree(tmp_path / "there")["d/sub/g"] == tree(tmp_path / "there")["sub/g"] == "two\n"
    copy("d/f", "file")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o4750
    (tmp_path / "file").write_text("old")
    copy("/d/../d/sub/g", "file")
    assert (tmp_path / "file").read_text() == "two\n"
    copy("/l", "link")
    assert os.readlink(tmp_path / "link") == "d"
    copy("/l/", "directory")
    copy("/l", "followed", "-L")
    assert (tmp_path / "directory/sub/g").read_text() == (tmp_path / "followed/sub/g").read_text() == "two\n"
    copy("/lf", "followed-file", "-L")
    assert (tmp_path / "followed-file").read_text() == "one\n"
    copy("/lf", "there", "-L")
    assert (tmp_path / "there/lf").read_text() == "one\n"
    copy("/fifo", "fifo")
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)
    copy("/up", "users", "-L")
    assert "alice" in (tmp_path / "users").read_text()
    with tarfile.open(fileobj=io.BytesIO(cli("cp", f"{container}:/d", "-").raw)) as archive:
        assert archive.getnames() == ["d", "d/f", "d/sub", "d/sub/g"]
    (tmp_path / "a-link").symlink_to("its-target")
    copy("/d/f", "a-link")
    assert (tmp_path / "its-target").read_text() == "one\n"


@pytest.mark.dealt
def test_into_a_container(cli: Cli, engine: Engine, container: str, tmp_path: Path) -> None:
    source = tmp_path / "s"
    (source / "sub").mkdir(parents=True)
    (source / "a").write_text("new a\n")
    (source / "sub/b").write_text("new b\n")
    (source / "sub/link").symlink_to("b")
    (source / "loop").symlink_to("loop")
    os.link(source / "a", source / "hard")
    os.utime(source / "a", ns=(1, 1_600_000_000_000_000_000))
    (tmp_path / "to-s").symlink_to("s")

    def copy(what: Path | str, target: str, *flags: str) -> None:
        cli("cp", *flags, str(what), f"{container}:{target}")

    def there(path: str) -> dict[str, tarfile.TarInfo]:
        with tarfile.open(fileobj=io.BytesIO(engine.docker("cp", f"{container}:{path}", "-").raw)) as archive:
            return {member.name: member for member in archive}

    copy(source, "/missing")
    assert sorted(there("/missing")) == sorted(
        ["missing", *(f"missing/{path}" for path in ("a", "hard", "loop", "sub", "sub/b", "sub/link"))]
    )
    copy(source, "/empty")
    copy(f"{source}/.", "/empty")
    found = there("/empty")
    assert {"empty/a", "empty/sub/b", "empty/s/a", "empty/s/sub/link"} <= set(found)
    assert found["empty/hard"].islnk()
    assert found["empty/a"].mtime == 1_600_000_000
    copy(source / "a", "/d/f")
    copy(source / "a", "/lf")  # a link at the end is followed
    copy(source / "a", "/d/new")
    assert there("/lf")["lf"].issym()
    assert there("/d/f")["f"].size == 6
    copy(source / "a", "/l/")
    assert "d/a" in there("/d")
    copy(tmp_path / "to-s", "/copied-link")
    assert there("/copied-link")["copied-link"].issym()
    copy(tmp_path / "to-s", "/followed", "-L")
    assert "followed/sub/b" in there("/followed")
    piped = io.BytesIO()
    with tarfile.open(fileobj=piped, mode="w:gz") as archive:
        archive.add(source, "piped")
    cli("cp", "-", f"{container}:/d", stdin=piped.getvalue())
    assert "d/piped/sub/b" in there("/d")


@pytest.mark.dealt
def test_what_is_refused(cli: Cli, container: str, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("x")
    file, folder = str(tmp_path / "file"), str(tmp_path / "dir")
    one = container
    for arguments, said in (
        ((f"{one}:/nope", "x"), f"Could not find the file /nope in container {one}"),
        ((f"{one}:/d", str(tmp_path / "no/x")), "invalid output path"),
        ((f"{one}:/d", file), "cannot copy directory"),
        ((f"{one}:/d/f", str(tmp_path / "no") + "/"), "no such"),
        ((folder, f"{one}:/d/f"), "cannot copy directory"),
        ((file, f"{one}:/d/nope/"), "no such directory"),
        ((file, f"{one}:/nope/x/y"), f"Could not find the file /nope/x in container {one}"),
        ((str(tmp_path / "gone"), f"{one}:/"), "no such file or directory"),
        ((f"{one}:/d", f"{one}:/e"), "copying between containers is not supported"),
        ((file, folder), "must specify at least one container source"),
        ((file, "nope-nope:/x"), "No such container: nope-nope"),
        (("-", f"{one}:/d/f"), "must be a directory"),
    ):
        done = cli("cp", *arguments, code=1)
        assert said in done.err, (arguments, done.err)
    (tmp_path / "sub").write_text("a file")
    assert "cannot overwrite directory" in cli("cp", str(tmp_path / "sub"), f"{one}:/d", code=1).err


def test_what_is_said(cli: Cli, engine: Engine, busybox: str, name: Names, tmp_path: Path) -> None:
    one = name()
    engine.docker("create", "--name", one, busybox)
    (tmp_path / "file").write_bytes(b"x" * 1000)
    file = str(tmp_path / "file")
    assert cli("cp", file, f"{one}:/x").err == ""  # no terminal
    size = {"docker": "2.56kB", "sampan": "3.58kB"}[cli.name]  # of the archive; ours has nanoseconds
    os.utime(file, ns=(1, 1_600_000_000_123_456_789))
    assert cli("cp", "-q=false", file, f"{one}:/x").err == f"Successfully copied {size} to {one}:/x\n"
    told = cli("cp", "-q=false", f"{one}:/x", file).err
    assert told.startswith("Successfully copied ")
    assert told.endswith(f"B to {file}\n")
    with cli.terminal("cp", file, f"{one}:/y") as terminal:
        terminal.expect(f"Successfully copied {size} to ".encode())
        assert terminal.wait() == 0


def test_owners(cli: Cli, engine: Engine, busybox: str, name: Names, tmp_path: Path) -> None:
    """Owners are kept, unless -a gives the files to the container's user; out of it they become ours."""
    (tmp_path / "f").write_text("x")
    os.chown(tmp_path / "f", 77, 78)
    one = name()
    engine.docker("run", "-d", "--name", one, "--user", "alice", busybox, "sleep", "600")
    cli("cp", str(tmp_path / "f"), f"{one}:/tmp/kept")
    cli("cp", "-a", str(tmp_path / "f"), f"{one}:/tmp/given")
    assert engine.docker("exec", one, "stat", "-c", "%u:%g", "/tmp/kept", "/tmp/given").lines == [
        "77:78",
        "1000:1000",
    ]
    cli("cp", f"{one}:/tmp/kept", str(tmp_path / "back"))
    assert (tmp_path / "back").stat().st_uid == 0


def test_volumes_binds_and_tmpfs(cli: Cli, engine: Engine, busybox: str, name: Names, tmp_path: Path) -> None:
    """They are where the container has them, also before its first start; read-only ones stay so."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "inside").write_text("of the host\n")
    (tmp_path / "f").write_text("copied\n")
    file = str(tmp_path / "f")
    mounts = [
        "-v",
        "/home",
        "-v",
        f"{host}:/host:ro",
        "--tmpfs",
        "/scratch",
        "--mount",
        "type=tmpfs,dst=/two",
    ]
    one, other = name(), name()
    engine.docker("create", "--name", other, *mounts, busybox, "sh", "-c", "cat /home/f; ls /home")
    cli("cp", file, f"{other}:/home/f")
    assert engine.docker("start", "-a", other).lines == ["copied", "alice", "f"]
    engine.docker("run", "-d", "--name", one, "--read-only", *mounts, busybox, "sleep", "600")
    for place in ("/home", "/scratch", "/two"):
        cli("cp", file, f"{one}:{place}/f")
        assert engine.docker("exec", one, "cat", f"{place}/f").out == "copied\n"
        cli("cp", f"{one}:{place}/f", str(tmp_path / "back"))
        assert (tmp_path / "back").read_text() == "copied\n"
    cli("cp", f"{one}:/host/inside", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "of the host\n"
    assert "mounted volume is marked read-only" in cli("cp", file, f"{one}:/host/", code=1).err
    assert "container rootfs is marked read-only" in cli("cp", file, f"{one}:/tmp/", code=1).err
    assert "busy" in cli("cp", file, f"{other}:/etc/hosts", code=1).err
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as opened:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, "/tmp"
        opened.addfile(link)
        opened.addfile(tarfile.TarInfo("out/f"))
    cli("cp", "-", f"{one}:/home", stdin=archive.getvalue(), code=1)  # from a volume into a read-only root
    assert engine.docker("exec", one, "ls", "/tmp").out == ""
    assert sorted(os.listdir(host)) == ["inside"]


def test_diff(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    engine.docker("create", "--name", one, busybox, "sh", "-c", "echo x > /a; rm /etc/plain; mkdir /home/n")
    assert cli("diff", one).out == ""
    assert engine.api.get(f"/containers/{one}/changes") is None
    engine.docker("start", "-a", one)
    assert sorted(cli("diff", one).lines) == ["A /a", "A /home/n", "C /etc", "C /home", "D /etc/plain"]
    assert cli("container", "diff", one).lines == cli("diff", one).lines
    assert "No such container: nope-nope" in cli("diff", "nope-nope", code=1).err


def test_the_header(engine: Engine, busybox: str, name: Names) -> None:
    """What a path is, in Go's terms, and the errors in Docker's words."""
    one = name()
    engine.docker("run", "--name", one, busybox, "sh", "-ec", MAKE + "; touch -d @1600000000 /d/f")

    def look(path: str) -> dict[str, object]:
        answer = engine.api("HEAD", f"/containers/{one}/archive?path={path}")
        assert answer.status == 200, path
        found: dict[str, object] = json.loads(
            base64.b64decode(answer.headers["x-docker-container-path-stat"])
        )
        return found

    file = look("/d/f")
    assert (file["name"], file["size"], file["mode"]) == ("f", 4, 1 << 23 | 0o750)
    assert file["mtime"] == "2020-09-13T12:26:40Z"
    assert (look("/l")["mode"], look("/l")["linkTarget"]) == (1 << 27 | 0o777, "/d")
    assert look("/dangling")["linkTarget"] == "/nowhere/x"
    assert look("/up")["linkTarget"] == "/etc/passwd"
    assert look("/l/")["mode"] == look("/d")["mode"] == 1 << 31 | 0o755
    assert [look(path)["name"] for path in ("/", "/d/", "/d/.", "d")] == ["/", "d", ".", "d"]
    assert look("/tmp")["mode"] == 1 << 31 | 1 << 20 | 0o777
    assert look("/fifo")["mode"] == 1 << 25 | 0o644
    for method, query, status, said in (
        ("GET", "path=/nope", 404, f"Could not find the file /nope in container {one}"),
        ("PUT", "path=/nope", 404, f"Could not find the file /nope in container {one}"),
        ("GET", "", 400, "bad parameter: pathcannot be empty"),
        ("PUT", "path=/d/f", 400, "extraction point is not a directory"),
        ("GET", "path=/d/f/", 500, "not a directory"),
        ("GET", "path=/d/f/x", 500, "not a directory"),
    ):
        answer = engine.api(method, f"/containers/{one}/archive?{query}")
        assert (answer.status, said in answer.message) == (status, True), (method, query, answer.message)


def test_what_is_hard_to_copy(cli: Cli, engine: Engine, debian: str, name: Names, tmp_path: Path) -> None:
    """Both ways: holes, nanoseconds, capabilities, devices, odd and long names."""
    one = name()
    engine.docker("run", "-d", "--name", one, debian, "sleep", "600")
    source = tmp_path / "s"
    source.mkdir()
    subprocess.run(
        "truncate -s 3000000 hole; printf end >> hole; setcap cap_net_raw+ep hole; mknod n c 1 3;"
        "touch 'odd\nname' -- '-dash' ö $(printf '%0200d' 0); mkdir -p a/$(printf '%090d/%090d' 1 2)/x;"
        "touch -d '2020-02-02 02:02:02.123456789 UTC' hole",
        shell=True,
        check=True,
        cwd=source,
    )
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(source, "s")
    cli("cp", str(source), f"{one}:/s")
    look = "cd /s; stat -c '%s %F' hole n; getcap hole; tail -c 3 hole; ls | wc -l; find . | wc -l"
    assert engine.docker("exec", one, "sh", "-c", look).lines == [
        "3000003 regular file",
        "0 character special file",
        "hole cap_net_raw=ep",
        "end8",
        "12",
    ]
    engine.docker("exec", one, "touch", "-d", "2020-02-02 02:02:02.123456789 UTC", "/s/hole")
    cli("cp", f"{one}:/s", str(tmp_path / "back"))
    assert sorted(os.listdir(tmp_path / "back")) == sorted(os.listdir(source))
    assert (tmp_path / "back/hole").stat().st_mtime_ns == 1580608922123456789
    assert os.getxattr(tmp_path / "back/hole", "security.capability") == os.getxattr(
        source / "hole", "security.capability"
    )


def test_a_full_volume_and_a_client_that_leaves(
    daemon: Daemon, busybox: str, name: Names, tmp_path: Path
) -> None:
    """A clear error, no half file, and nothing that stays open or mounted."""
    image, small = tmp_path / "small.img", tmp_path / "small"
    small.mkdir()
    subprocess.run(["truncate", "-s", "16M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, small], check=True)
    one = name()
    try:
        daemon.docker("run", "-d", "--name", one, "-v", f"{small}:/small", busybox, "sleep", "600")
        before = descriptors(daemon.pid)
        (tmp_path / "big").write_bytes(bytes(40 << 20))
        done = daemon.docker("cp", str(tmp_path / "big"), f"{one}:/small/big", code=1)
        assert "No space left on device" in done.err
        assert not (small / "big").exists()
        daemon.docker("exec", one, "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=200 2>/dev/null")
        with daemon.docker.start("cp", f"{one}:/big", "-") as process:
            assert process.stdout is not None
            process.stdout.read(1 << 20)
            process.kill()
        with daemon.docker.start("cp", "-", f"{one}:/tmp") as process:
            assert process.stdin is not None
            process.stdin.write(header("half", 100 << 20) + bytes(10 << 20))
            process.stdin.flush()
            process.kill()
        eventually(lambda: descriptors(daemon.pid) == before, what="no descriptor is left")
        assert daemon.docker("exec", one, "ls", "/tmp").out == ""
    finally:
        daemon.api.remove(one)
        subprocess.run(["umount", small], check=True)


def header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf()


def descriptors(pid: int) -> int:
    """The daemon's open mount namespaces and directories."""
    count = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
        count += target.startswith(("mnt:", "/"))
    return count


def test_memory_stays_bounded(daemon: Daemon, busybox: str, name: Names, tmp_path: Path) -> None:
    """150 MB each way grow the daemon by less than 40."""
    one = name()
    daemon.docker("create", "--name", one, busybox)
    with (tmp_path / "big").open("wb") as file:
        file.truncate(150 << 20)

    def peak() -> int:
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])

    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")
    before = peak()
    daemon.docker("cp", str(tmp_path / "big"), f"{one}:/big")
    daemon.docker("cp", f"{one}:/big", str(tmp_path / "back"))
    assert (tmp_path / "back").stat().st_size == 150 << 20
    assert peak() - before < 40 << 10
