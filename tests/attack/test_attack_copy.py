"""`cp` of a container that swaps its files for links meanwhile: nothing of the host is reached."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.linux.view import Bind, View
from sampan.storage import InvalidArchive, archive_path, extract

pytestmark = pytest.mark.root
SECONDS = 4.0


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """What a container must neither read nor write."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").write_text("the host's secret")
    (tmp_path / "host/secret").chmod(0o600)
    return tmp_path / "host"


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    (tmp_path / "rootfs/d").mkdir(parents=True)
    return tmp_path / "rootfs"


def archive(*members: tuple[str, bytes, str]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as opened:
        for name, kind, link in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, link, 0o777
            if kind == tarfile.REGTYPE:
                info.size = 7
                opened.addfile(info, io.BytesIO(b"written"))
            else:
                opened.addfile(info)
    out.seek(0)
    return out


@contextlib.contextmanager
def swapping(step: Callable[[], None]) -> Iterator[None]:
    """Do something over and over meanwhile."""
    end = threading.Event()

    def run() -> None:
        while not end.is_set():
            with contextlib.suppress(OSError):
                step()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def untouched(host: Path) -> None:
    assert sorted(os.listdir(host)) == ["secret"]
    assert (host / "secret").read_text() == "the host's secret"
    assert (host / "secret").stat().st_mode & 0o777 == 0o600


def test_links_and_dots_stay_inside(rootfs: Path, host: Path) -> None:
    (rootfs / "out").symlink_to(host)
    (rootfs / "up").symlink_to("../../../../../../../.." + str(host))
    (rootfs / "d/file").symlink_to(host / "secret")
    with View(str(rootfs), []) as view:
        for place in ("/out", "/up", "/out/secret", str(host / "secret"), f"/d/../../..{host}/"):
            with pytest.raises(FileNotFoundError):
                archive_path(view.root, place + "/", "x", io.BytesIO())
        extract(view.root, "/d", archive(("file", tarfile.REGTYPE, "")))
        assert (rootfs / "d/file").read_text() == "written"
        extract(view.root, "/d", archive(("l", tarfile.SYMTYPE, "/d"), ("l/x", tarfile.REGTYPE, "")))
        assert (rootfs / "d/x").read_text() == "written"
        for members in (
            (("../x", tarfile.REGTYPE, ""),),
            (("a/../../x", tarfile.REGTYPE, ""),),
            (("h", tarfile.LNKTYPE, "../etc/passwd"),),
            (("l2", tarfile.SYMTYPE, str(host)), ("h", tarfile.LNKTYPE, "l2/secret")),
            (("l3", tarfile.SYMTYPE, str(host)), ("l3/new", tarfile.REGTYPE, "")),
        ):
            with pytest.raises(InvalidArchive):
                extract(view.root, "/d", archive(*members))
    untouched(host)


def test_reading_while_directories_become_links(rootfs: Path, host: Path) -> None:
    (rootfs / "d/a/b").mkdir(parents=True)
    for number in range(20):
        (rootfs / f"d/a/b/{number}").write_text("inside")
    (rootfs / "trap").symlink_to(host.parent)

    def step() -> None:
        os.rename(rootfs / "d/a", rootfs / "aside")
        os.symlink(host.parent, rootfs / "d/a")
        os.unlink(rootfs / "d/a")
        os.rename(rootfs / "aside", rootfs / "d/a")
        os.rename(rootfs / "d/a/b/1", rootfs / "one")
        os.symlink(host / "secret", rootfs / "d/a/b/1")
        os.rename(rootfs / "one", rootfs / "d/a/b/1")

    deadline = time.monotonic() + SECONDS
    rounds = 0
    with swapping(step), View(str(rootfs), []) as view:
        while time.monotonic() < deadline:
            rounds += 1
            for place in ("/d", "/d/a/b", "/d/a/b/1"):
                out = io.BytesIO()
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    archive_path(view.root, place, "x", out)
                assert b"the host's secret" not in out.getvalue()
    assert rounds > 50


def test_writing_while_directories_and_files_become_links(rootfs: Path, host: Path) -> None:
    """Modes, owners, times and contents land inside, also of devices and fifos, which cannot be opened."""
    members = [("s", tarfile.DIRTYPE, "")]
    members += [(f"s/{number}", tarfile.FIFOTYPE, "") for number in range(20)]
    members += [("s/secret", tarfile.FIFOTYPE, ""), ("s/secret", tarfile.REGTYPE, "")]

    def step() -> None:
        os.rename(rootfs / "d/s", rootfs / "aside")
        os.symlink(host, rootfs / "d/s")
        os.unlink(rootfs / "d/s")
        os.rename(rootfs / "aside", rootfs / "d/s")
        os.unlink(rootfs / "d/s/secret")
        os.symlink(host / "secret", rootfs / "d/s/secret")

    deadline = time.monotonic() + SECONDS
    finished = 0
    with swapping(step), View(str(rootfs), []) as view:
        while time.monotonic() < deadline:
            with contextlib.suppress(InvalidArchive, OSError):
                extract(view.root, "/d", archive(*members), owner=(1000, 1000))
                finished += 1
    untouched(host)
    assert (host / "secret").stat().st_uid == 0
    assert finished


def test_mounts_while_their_places_become_links(rootfs: Path, host: Path, tmp_path: Path) -> None:
    """A volume is mounted inside, or not at all; and a mount of the view is no mount of the machine."""
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/mine").write_text("of the volume")

    def step() -> None:
        os.rename(rootfs / "d", rootfs / "aside")
        os.symlink(host.parent, rootfs / "d")
        os.unlink(rootfs / "d")
        os.rename(rootfs / "aside", rootfs / "d")

    before = Path("/proc/self/mountinfo").read_text()
    deadline = time.monotonic() + SECONDS
    with swapping(step):
        while time.monotonic() < deadline:
            with (
                contextlib.suppress(OSError),
                View(str(rootfs), [Bind(str(tmp_path / "volume"), "/d/host")]),
            ):
                pass
            untouched(host)
    assert Path("/proc/self/mountinfo").read_text() == before


def test_mount_points_are_not_removed(rootfs: Path, tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "file").write_text("mounted")
    binds = [Bind(str(tmp_path / "volume"), "/v"), Bind(str(tmp_path / "file"), "/f", readonly=True)]
    with View(str(rootfs), binds) as view:
        for name in ("v", "f"):
            with pytest.raises(OSError, match="busy"):
                members = archive((name, tarfile.REGTYPE, ""))
                view.run(lambda members=members: extract(view.root, "/", members))
        with pytest.raises(InvalidArchive, match="cannot overwrite directory"):
            extract(view.root, "/", archive(("v", tarfile.REGTYPE, "")), keep_kinds=True)
    assert (tmp_path / "file").read_text() == "mounted"


def test_what_would_hang_does_not(rootfs: Path) -> None:
    """Fifos, sockets and devices are told of, or left out, and never opened."""
    os.mkfifo(rootfs / "d/fifo")
    os.mknod(rootfs / "d/tty", 0o20600, os.makedev(5, 0))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(rootfs / "d/socket"))
    out = io.BytesIO()
    with View(str(rootfs), []) as view:
        archive_path(view.root, "/d", "d", out)
        archive_path(view.root, "/d/fifo", "fifo", io.BytesIO())
        archive_path(view.root, "/d/socket", "socket", io.BytesIO())
    out.seek(0)
    with tarfile.open(fileobj=out) as opened:
        kinds = {member.name: member.type for member in opened}
    assert kinds == {"d": tarfile.DIRTYPE, "d/fifo": tarfile.FIFOTYPE, "d/tty": tarfile.CHRTYPE}
