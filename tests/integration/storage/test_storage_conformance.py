"""The same work by every storage driver, and the same to be seen of it."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sampan.linux import btrfs, syscalls
from sampan.storage import Driver, DriverError, export_tar, init_layer, open_driver
from support import needs
from support.layers import entry, layer, tree
from support.machine import eventually

pytestmark = [pytest.mark.root, needs.program("fuse-overlayfs")]
NS = {"mtime": "1500000000.123456789"}
Facts = dict[str, Any]
OWN = {*init_layer.DIRECTORIES, *init_layer.FILES, *init_layer.LINKS} - {"etc"}
# fuse-overlayfs 1.10 cannot copy devices and pipes of an image up: EIO
LEFT_ALONE = OWN | {"null", "pipe"}
CAPABILITY = {"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20" + "\x00" * 14}

LAYERS = [
    layer(
        *(entry(name, "dir") for name in ("bin", "var", "var/log", "opt", "opt/deep", "opt/deep/er", "swap")),
        entry("etc", "dir"), entry("etc/conf", data=b"old", pax_headers=NS),
        entry("bin/tool", data=b"t" * 9000), entry("bin/tool2", "link", linkname="bin/tool"),
        entry("var/log/a", data=b"a"), entry("var/log/b"), entry("opt/deep/er/x", data=b"x"),
        entry("cap", data=b"c", pax_headers=CAPABILITY), entry("null", "char", devmajor=1, devminor=3),
        entry("user", data=b"u", uid=70000, gid=70001, pax_headers={"SCHILY.xattr.user.k": "v"}),
        entry("pipe", "fifo"), entry("tmp", "dir", mode=0o1777), entry("swap/file"),
        entry("swap2", data=b"2"), entry("same", data=b"s"),
    ),
    layer(
        entry("var/log/.wh.b"), entry("opt/deep/.wh..wh..opq"), entry("opt/deep/new", data=b"n"),
        entry("bin/.wh.tool2"), entry(".wh.swap"), entry("swap", data=b"now a file"), entry("swap2", "dir"),
        entry("swap2/x", pax_headers=NS), entry("etc/conf", data=b"newer", mode=0o600, pax_headers=NS),
        entry("sticky", "dir", mode=0o3770, uid=5, pax_headers=NS),
        entry("link", "symlink", linkname="/etc/conf"),
    ),
]  # fmt: skip


def name_of(number: int) -> str:
    return f"sha256:{number:064x}"


def shown(root: Path) -> Facts:
    """The tree without what every container gets, whose directories' times say when that was."""
    return {name: facts for name, facts in tree(root).items() if name not in OWN}


def work(root: Path) -> None:
    """What a container does: every way of changing a tree, with times that do not depend on the day."""
    (root / "etc/conf").write_bytes(b"written by the container")
    (root / "bin/tool3").write_bytes(b"3" * 70_000)
    os.link(root / "bin/tool3", root / "bin/tool4")
    os.unlink(root / "var/log/a")
    for gone in ("opt/deep/new", "swap2/x"):
        os.unlink(root / gone)
    os.rmdir(root / "opt/deep")
    (root / "opt/deep").mkdir(mode=0o700)  # over the image's
    (root / "opt/deep/fresh").symlink_to("/nowhere")
    os.rename(root / "swap", root / "renamed")
    os.rmdir(root / "swap2")
    (root / "swap2").write_bytes(b"a file again")
    os.mkfifo(root / "tmp/fifo", 0o640)
    os.mknod(root / "tmp/zero", 0o20666, os.makedev(1, 5))
    os.setxattr(root / "user", "user.k", b"w")
    os.chown(root / "link", 3, 4, follow_symlinks=False)
    os.chmod(root / "sticky", 0o1700)
    (root / "many/levels/of").mkdir(parents=True)
    (root / "many/levels/of/it").touch()
    os.unlink(root / "cap")
    (root / "cap").touch()
    os.unlink(root / "same")
    (root / "same").write_bytes(b"s")
    for place, folders, files in os.walk(root, topdown=False):
        for name in folders + files:
            path = os.path.join(place, name)
            if os.path.relpath(path, root) not in LEFT_ALONE:
                os.utime(path, ns=(0, 1600000000987654321), follow_symlinks=False)


def life(driver: Driver) -> dict[str, Any]:
    """Everything that the driver says and shows in the life of a container."""
    found: dict[str, Any] = {}
    parent = None
    for number, data in enumerate(LAYERS, 1):
        driver.apply_layer(name_of(number), parent, io.BytesIO(data))
        parent = name_of(number)
    found["layer sizes"] = [driver.layer_size(name_of(number)) for number in (1, 2)]
    driver.create_container("c1", parent)
    root = Path(driver.mount("c1"))
    found["image"] = shown(root)
    found["changes of a new one"] = driver.changes("c1")
    work(root)
    found["container"] = shown(root)
    found["changes"] = driver.changes("c1")
    exported = io.BytesIO()
    export_tar(str(root), exported)
    found["export"] = exported.getvalue()
    out = io.BytesIO()
    driver.diff_tar("c1", out)
    with driver.snapshot("c1") as snapshot:
        written = io.BytesIO()
        snapshot.write_tar(written)
        snapshot.commit(name_of(3))
    driver.unmount("c1")
    for number, data in enumerate((out, written), 4):
        driver.apply_layer(name_of(number), parent, io.BytesIO(data.getvalue()))
    for number, what in enumerate(("snapshot", "diff applied", "archive of the snapshot applied"), 3):
        driver.create_container(f"d{number}", name_of(number))
        found[what] = shown(Path(driver.mount(f"d{number}")))
        found[f"changes over the {what}"] = driver.changes(f"d{number}")
        driver.unmount(f"d{number}")
    again = Path(driver.mount("c1"))
    found["mounted again"] = shown(again)
    driver.unmount("c1")
    return found


def clear(driver: Driver) -> None:
    for name in ("c1", "d3", "d4", "d5"):
        driver.remove_container(name)
    for number in range(5, 0, -1):
        driver.remove_layer(name_of(number))
    driver.purge_trash()
    assert driver.mounted() == driver.layers() == set()
    assert driver.stray(set()) == []


def test_all_drivers_show_the_same(tmp_path: Path, btrfs_disk: Path) -> None:
    places = {
        "overlay2": tmp_path,
        "fuse-overlayfs": tmp_path,
        "vfs": tmp_path,
        "btrfs": btrfs_disk / "conformance",
    }
    expected: dict[str, Any] = {}
    for name, place in places.items():
        driver = open_driver(name, place)
        try:
            found = life(driver)
        finally:
            clear(driver)
        expected = expected or found
        for what, facts in found.items():
            assert facts == expected[what], f"{name}: {what}"
    image = expected["image"]
    assert "swap2/x" in image
    assert "var/log/b" not in image
    assert image["sticky"][4] == 1500000000123456789
    assert expected["container"] == expected["snapshot"] == expected["diff applied"]
    assert expected["changes of a new one"] == []


def test_removal_does_not_wait_for_the_files(driver_name: str, root: Path) -> None:
    driver = open_driver(driver_name, root)
    driver.create_container("c1", None)
    place = Path(driver.mount("c1"))
    for number in range(300):
        (place / f"f{number}").touch()
    driver.unmount("c1")
    driver.remove_container("c1")
    home = root / driver_name
    (waiting,) = (home / "trash").iterdir()
    assert len(list((waiting / driver.files).iterdir())) >= 300  # type: ignore[attr-defined]
    assert not (home / "containers/c1").exists()
    driver.purge_trash()
    assert list((home / "trash").iterdir()) == []


# --- fuse-overlayfs ---


def servers(place: Path) -> list[int]:
    """The running programs that serve mounts below a directory."""
    found = []
    for entry_ in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry_ / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(b"fuse-overlayfs") and any(os.fsencode(place) in word for word in words):
                found.append(int(entry_.name))
    return found


def is_dead(point: Path) -> bool:
    try:
        os.statvfs(point)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def test_a_server_lives_as_long_as_its_mount(tmp_path: Path) -> None:
    driver = open_driver("fuse-overlayfs", tmp_path)
    driver.apply_layer(name_of(1), None, io.BytesIO(LAYERS[0]))
    driver.create_container("c1", name_of(1))
    root = Path(driver.mount("c1"))
    (root / "mine").write_bytes(b"1")
    (server,) = servers(tmp_path)
    assert os.getsid(server) == server
    again = open_driver(None, tmp_path)  # as after a crash of the daemon
    assert again.name == "fuse-overlayfs"
    assert again.mounted() == {"c1"}
    eventually(lambda: servers(tmp_path) == [server], what="the one that tried whether it works has ended")
    assert (root / "mine").read_bytes() == b"1"
    again.unmount("c1")
    eventually(lambda: servers(tmp_path) == [], what="the server ends")
    assert again.mounted() == set()
    again.remove_container("c1")


def test_a_server_that_died_is_replaced(tmp_path: Path) -> None:
    driver = open_driver("fuse-overlayfs", tmp_path)
    driver.apply_layer(name_of(1), None, io.BytesIO(LAYERS[0]))
    driver.create_container("c1", name_of(1))
    root = Path(driver.mount("c1"))
    (root / "mine").write_bytes(b"1")
    for use in ("at once", "at the next start"):
        (server,) = servers(tmp_path)
        os.kill(server, signal.SIGKILL)
        eventually(lambda: servers(tmp_path) == [])
        eventually(lambda: is_dead(root), what="the mount is dead")
        driver = driver if use == "at once" else open_driver("fuse-overlayfs", tmp_path)
        assert Path(driver.mount("c1")) == root
        assert (root / "mine").read_bytes() == b"1"
        assert (root / "etc/conf").read_bytes() == b"old"
    driver.remove_container("c1")
    eventually(lambda: servers(tmp_path) == [], what="the server ends")


def test_the_program_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampan.storage.fuse_overlayfs._PATH", str(tmp_path))
    with pytest.raises(DriverError, match="apt-get install fuse-overlayfs"):
        open_driver("fuse-overlayfs", tmp_path / "root")
    assert os.listdir(tmp_path / "root") == []


# --- btrfs ---


def subvolumes(point: Path) -> int:
    done = subprocess.run(
        ["btrfs", "subvolume", "list", str(point)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return len(done.stdout.splitlines())


def test_subvolumes_of_a_container_are_kept_and_removed(btrfs_disk: Path) -> None:
    place = btrfs_disk / "nested"
    before = subvolumes(btrfs_disk)
    driver = open_driver("btrfs", place)
    driver.apply_layer(name_of(1), None, io.BytesIO(LAYERS[0]))
    driver.create_container("c1", name_of(1))
    root = Path(driver.mount("c1"))
    (root / "a").mkdir()
    btrfs.create(root / "a/one")
    btrfs.create(root / "a/one/two")
    (root / "a/one/two/file").write_bytes(b"deep")
    (root / "a/one/file").write_bytes(b"1")
    with driver.snapshot("c1") as snapshot:
        (root / "a/one/file").write_bytes(b"too late")
        snapshot.commit(name_of(2))
    view = Path(driver.mount_layers_ro(name_of(2)))
    assert (view / "a/one/two/file").read_bytes() == b"deep"
    assert (view / "a/one/file").read_bytes() == b"1"
    assert subvolumes(btrfs_disk) == before + 5
    deep = os.open(root, os.O_RDONLY)
    for _ in range(30):  # deeper than a path may be long
        os.mkdir("x" * 200, dir_fd=deep)
        below = os.open("x" * 200, os.O_RDONLY, dir_fd=deep)
        os.close(deep)
        deep = below
    btrfs.create(f"/proc/self/fd/{deep}/./inmost")
    os.close(deep)
    driver.remove_container("c1")
    for number in (2, 1):
        driver.remove_layer(name_of(number))
    driver.purge_trash()
    assert subvolumes(btrfs_disk) == before


def test_subvolumes_that_a_container_made_read_only_are_removed(btrfs_disk: Path) -> None:
    before = subvolumes(btrfs_disk)
    driver = open_driver("btrfs", btrfs_disk / "sealed")
    driver.create_container("c1", None)
    root = Path(driver.mount("c1"))
    btrfs.create(root / "a")
    btrfs.create(root / "a/b")
    btrfs.set_read_only(root / "a")
    btrfs.set_read_only(root)
    driver.remove_container("c1")
    driver.purge_trash()
    assert subvolumes(btrfs_disk) == before


# --- trash ---


def test_what_cannot_be_deleted_keeps_nothing_else_from_going(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    driver = open_driver("overlay2", tmp_path)
    for number in range(3):
        driver.create_container(f"c{number}", None)
        driver.remove_container(f"c{number}")
    trash = sorted((tmp_path / "overlay2/trash").iterdir())
    resisting = trash[1] / "diff"
    rmdir = os.rmdir

    def immutable(path: Any, *, dir_fd: int | None = None) -> None:  # as with chattr +i
        if path == "diff" and dir_fd is not None and os.path.samestat(os.fstat(dir_fd), trash[1].stat()):
            raise PermissionError(1, "Operation not permitted", str(resisting))
        rmdir(path, dir_fd=dir_fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", immutable)
        driver.purge_trash()
    assert list((tmp_path / "overlay2/trash").iterdir()) == [trash[1]]
    assert f"{trash[1]} cannot be deleted: " in caplog.text
    driver.purge_trash()
    assert not list((tmp_path / "overlay2/trash").iterdir())


def test_a_container_that_is_mounted_twice_after_a_crash_leaves_no_mount(tmp_path: Path) -> None:
    driver = open_driver("overlay2", tmp_path)
    driver.create_container("c1", None)
    merged = driver.mount("c1")
    syscalls.mount("none", merged, "tmpfs", 0)
    driver.unmount("c1")
    assert not os.path.ismount(merged)


# --- which one ---


def test_a_data_root_stays_with_its_driver(tmp_path: Path) -> None:
    driver = open_driver("vfs", tmp_path)
    driver.create_container("c1", None)
    assert open_driver(None, tmp_path).name == "vfs"
    other = open_driver("overlay2", tmp_path)  # by name: whatever was used before
    assert open_driver(None, tmp_path).name == "vfs"
    other.create_container("c2", None)
    with pytest.raises(DriverError, match="overlay2 and vfs: choose one with --storage-driver"):
        open_driver(None, tmp_path)
    driver.remove_container("c1")
    assert open_driver(None, tmp_path).name == "overlay2"
    other.remove_container("c2")


def test_a_driver_that_was_used_and_fails_now_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_driver("fuse-overlayfs", tmp_path).create_container("c1", None)
    monkeypatch.setattr("sampan.storage.fuse_overlayfs._PATH", str(tmp_path))
    with pytest.raises(DriverError, match="has been used with the storage driver fuse-overlayfs"):
        open_driver(None, tmp_path)
    with pytest.raises(DriverError, match="does not lie on a btrfs"):
        open_driver("btrfs", tmp_path)
