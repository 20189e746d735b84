"""What every storage driver promises, asked of each of them."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import Conflict, InvalidParameter
from sampan.storage import (
    ADDED,
    DELETED,
    MODIFIED,
    Driver,
    InvalidLayer,
    NoSuchLayer,
    export_tar,
    init_layer,
    open_driver,
)
from support.layers import entry, layer, tree

pytestmark = pytest.mark.root
CAPABILITY = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"


def name_of(number: int) -> str:
    return f"sha256:{number:064x}"


@pytest.fixture
def driver(driver_name: str, root: Path) -> Iterator[Driver]:
    opened = open_driver(driver_name, root)
    yield opened
    for number in range(1, 4):
        opened.remove_container(f"c{number}")
    assert opened.mounted() == set()
    for path in opened.stray(set()):
        opened.remove_stray(path)
    for layer_id in opened.layers():
        opened.forget_layer(layer_id)
    opened.purge_trash()


@contextlib.contextmanager
def container(driver: Driver, *layers: bytes, name: str = "c1") -> Iterator[Path]:
    """A mounted container on top of these layers, lowest first."""
    parent: str | None = None
    for number, data in enumerate(layers, 1):
        driver.apply_layer(name_of(number), parent, io.BytesIO(data))
        parent = name_of(number)
    driver.create_container(name, parent)
    yield Path(driver.mount(name))
    driver.unmount(name)


def test_a_layer_keeps_everything_about_its_files(driver: Driver) -> None:
    times = {"mtime": "1500000000.123456789"}
    data = layer(
        entry("d", "dir", mode=0o2775, uid=5, gid=6, pax_headers=times),
        entry("d/file", data=b"abc", mode=0o6755, uid=1000, gid=1001, pax_headers=times),
        entry("d/link", "symlink", linkname="/nowhere", uid=7, gid=8, pax_headers=times),
        entry("hard", "link", linkname="d/file"),
        entry("null", "char", devmajor=1, devminor=3, mode=0o666),
        entry("pipe", "fifo", mode=0o600),
        entry("cap", data=b"x", pax_headers={"SCHILY.xattr.security.capability": CAPABILITY}),
        entry("implied/by/name", data=b"1"),
        entry("tmp", "dir", mode=0o1777),
        entry("d/later", data=b"moves the directory's time unless that is set last"),
    )
    with container(driver, data) as root:
        files = tree(root)
        ns = 1500000000123456789
        assert files["d"][:5] == ("0o42775", 5, 6, 0, ns)
        assert files["d/file"][:3] == ("0o106755", 1000, 1001)
        assert files["d/file"][4] == ns
        assert files["d/link"][1:6] == (7, 8, 0, ns, "/nowhere")
        assert files["hard"][7] == files["d/file"][7]
        assert files["null"][0] == "0o20666"
        assert files["null"][3] == os.makedev(1, 3)
        assert stat.S_ISFIFO(os.lstat(root / "pipe").st_mode)
        assert files["cap"][6] == [("security.capability", CAPABILITY.encode())]
        assert files["implied/by"][0] == "0o40755"
        assert files["tmp"][0] == "0o41777"
        assert files["d/later"][2] == 0  # no group from the set-group-id directory
    assert driver.layer_size(name_of(1)) == 3 + 1 + 1 + 50


def test_whiteouts_hide_what_is_below(driver: Driver) -> None:
    below = layer(
        entry("gone"), entry("kept"), entry("d/a"), entry("d/b"), entry("tree/x/y"),
        entry("again/old"), entry("file-then-dir"), entry("dir-then-file/x"),
    )  # fmt: skip
    above = layer(
        entry(".wh.gone"), entry("d/new"), entry("d/.wh..wh..opq"), entry(".wh.tree"),
        entry(".wh.again"), entry("again", "dir"), entry("again/new"), entry(".wh.never-there"),
        entry("file-then-dir", "dir"), entry("file-then-dir/x"), entry("dir-then-file", data=b"f"),
    )  # fmt: skip
    with container(driver, below, above) as root:
        assert not (root / "gone").exists()
        assert (root / "kept").exists()
        assert os.listdir(root / "d") == ["new"]
        assert not (root / "tree").exists()
        assert os.listdir(root / "again") == ["new"]
        assert (root / "file-then-dir/x").exists()
        assert (root / "dir-then-file").read_bytes() == b"f"


def test_an_opaque_root_hides_everything(driver: Driver) -> None:
    with container(
        driver,
        layer(entry("a"), entry("b/c"), entry("keep/old")),
        layer(entry("new"), entry("keep/x"), entry(".wh..wh..opq"), entry("b", "dir")),
    ) as root:
        present = {name for name in os.listdir(root) if name in ("a", "b", "keep", "new")}
        assert present == {"b", "keep", "new"}
        assert os.listdir(root / "b") == []
        assert os.listdir(root / "keep") == ["x"]


def test_a_directory_that_a_layer_implies_stays_as_it_was(driver: Driver) -> None:
    with container(driver, layer(entry("tmp", "dir", mode=0o1777, uid=3)), layer(entry("tmp/x"))) as root:
        assert tree(root)["tmp"][:2] == ("0o41777", 3)


def test_later_members_of_an_archive_replace_earlier_ones(driver: Driver) -> None:
    with container(
        driver,
        layer(
            entry("a", data=b"1"), entry("a", data=b"22"), entry("d/x/y"), entry("d", data=b"file"),
            entry("l", "symlink", linkname="d"), entry("l", "dir"), entry("l/in"), entry("f"),
            entry("f", "dir"), entry("f/in"), entry("lib", "symlink", linkname="usr/lib"),
            entry("usr/lib", "dir"), entry("lib/so", data=b"s"), entry("abs", "symlink", linkname="/usr"),
            entry("abs/local"),
        ),
    ) as root:  # fmt: skip
        assert (root / "a").read_bytes() == b"22"
        assert (root / "d").read_bytes() == b"file"
        assert (root / "l/in").exists()
        assert (root / "f/in").exists()
        assert (root / "usr/lib/so").read_bytes() == b"s"
        assert (root / "lib").is_symlink()
        assert (root / "usr/local").exists()


def test_containers_do_not_see_each_other(driver: Driver) -> None:
    with container(driver, layer(entry("f", data=b"image"))) as first:
        driver.create_container("c2", name_of(1))
        second = Path(driver.mount("c2"))
        (first / "f").write_bytes(b"mine")
        os.unlink(second / "f")
        assert (first / "f").read_bytes() == b"mine"
        assert not (second / "f").exists()
        driver.unmount("c2")
        driver.create_container("c3", name_of(1))
        assert (Path(driver.mount("c3")) / "f").read_bytes() == b"image"
        driver.unmount("c3")


def test_mount_points_are_there_even_in_an_empty_image(driver: Driver) -> None:
    driver.create_container("c1", None)
    root = Path(driver.mount("c1"))
    assert {"proc", "sys", "dev", "etc"} <= set(os.listdir(root))
    assert (root / "etc/hosts").is_file()
    assert driver.changes("c1") == []
    driver.unmount("c1")


def test_an_images_own_files_win_over_mount_points(driver: Driver) -> None:
    with container(
        driver, layer(entry("etc/hosts", data=b"mine"), entry("dev", "symlink", linkname="d"))
    ) as root:
        assert (root / "etc/hosts").read_bytes() == b"mine"
        assert (root / "dev").is_symlink()
        assert driver.changes("c1") == []


def test_tells_what_a_container_changed_and_gives_it_as_a_layer(driver: Driver) -> None:
    base = layer(
        entry("etc/conf", data=b"old"), entry("var/log/a"), entry("var/cache/x/y"), entry("keep", data=b"k"),
        entry("mode"),
    )  # fmt: skip
    with container(driver, base) as root:
        (root / "etc/conf").write_bytes(b"changed")
        (root / "new").write_bytes(b"12345")
        os.link(root / "new", root / "new2")
        os.unlink(root / "var/log/a")
        for gone in ("var/cache/x/y", "var/cache/x", "var/cache"):
            (os.unlink if gone.endswith("y") else os.rmdir)(root / gone)
        os.mkdir(root / "var/cache")
        (root / "var/cache/z").touch()
        os.chmod(root / "mode", 0o600)
        os.close(os.open(root / "keep", os.O_RDWR))
        os.symlink("/etc/shadow", root / "evil")
        changes = {change.path: change.kind for change in driver.changes("c1")}
        assert changes["/etc/conf"] == changes["/etc"] == changes["/mode"] == changes["/var/log"] == MODIFIED
        assert changes["/new"] == changes["/new2"] == changes["/var/cache/z"] == changes["/evil"] == ADDED
        assert changes["/var/log/a"] == changes["/var/cache/x"] == DELETED
        assert "/keep" not in changes
        assert driver.container_size("c1") >= 12
        out = io.BytesIO()
        driver.diff_tar("c1", out)
        before = tree(root)
    driver.apply_layer(name_of(9), name_of(1), io.BytesIO(out.getvalue()))
    driver.create_container("c2", name_of(9))
    after = tree(Path(driver.mount("c2")))
    driver.unmount("c2")
    assert without_mount_points(after) == without_mount_points(before)


def without_mount_points(files: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    own = {*init_layer.DIRECTORIES, *init_layer.FILES, *init_layer.LINKS} - {"etc"}
    return {name: facts for name, facts in files.items() if name not in own}


def _without_mount_points(files: dict[str, tuple[object, ...]]) -> dict[str, tuple[object, ...]]:
    """A view of overlay2's shows what its init layer has below."""
    names = {*init_layer.FILES, *init_layer.LINKS, *(set(init_layer.DIRECTORIES) - {"etc"})}
    return {path: facts for path, facts in files.items() if path not in names}


def test_a_snapshot_is_the_layer_that_its_archive_holds(driver: Driver) -> None:
    base = layer(
        entry("etc", "dir"), entry("etc/a", data=b"a"), entry("etc/b", data=b"b"), entry("opt/x", data=b"x"),
    )  # fmt: skip
    with container(driver, base) as root:
        (root / "etc/a").write_text("changed")
        (root / "etc/b").unlink()
        (root / "new").write_text("new")
        os.link(root / "new", root / "hard")
        os.truncate(root / "new", 100_000)
        os.setxattr(root / "etc", "user.k", b"v")
        (root / "opt/x").unlink()
        (root / "opt").rmdir()
        (root / "opt").mkdir(mode=0o700)
        (root / "opt/y").symlink_to("nowhere")
        os.mkfifo(root / "pipe")
        with driver.snapshot("c1") as snapshot:
            (root / "new").write_text("too late")
            (root / "after").touch()
            out = io.BytesIO()
            snapshot.write_tar(out)
            again = io.BytesIO()
            snapshot.write_tar(again)
            assert again.getvalue() == out.getvalue()
            snapshot.commit(name_of(8))
        driver.apply_layer(name_of(9), name_of(1), io.BytesIO(out.getvalue()))
        assert driver.layer_parent(name_of(8)) == name_of(1)
        assert driver.layer_size(name_of(8)) == 7 + 100_000
        shown = []
        for number in (8, 9):
            view = Path(driver.mount_layers_ro(name_of(number)))
            shown.append(_without_mount_points(tree(view)))
            driver.unmount_layers_ro(name_of(number))
        assert shown[0] == shown[1]
        assert set(shown[0]) == {"etc", "etc/a", "new", "hard", "opt", "opt/y", "pipe"}


def test_a_snapshot_that_is_not_wanted_leaves_nothing(driver: Driver, root: Path) -> None:
    with container(driver, layer(entry("a", data=b"a"))) as files:
        (files / "b").touch()
        with driver.snapshot("c1"):
            pass
    assert os.listdir(root / driver.name / "stage") == []
    with pytest.raises(NoSuchLayer):
        driver.snapshot("c2")


def test_export_gives_the_whole_tree_back(driver: Driver) -> None:
    data = layer(
        entry("d", "dir", mode=0o1777), entry("d/f", data=b"x" * 5000, mode=0o4755, uid=70000),
        entry("h", "link", linkname="d/f"), entry("s", "symlink", linkname="/etc/passwd"),
        entry("n" * 200, data=b"1", pax_headers={"mtime": "1.000000001", "SCHILY.xattr.user.k": "v"}),
        entry("null", "char", devmajor=1, devminor=3),
    )  # fmt: skip
    with container(driver, data) as root:
        out, again = io.BytesIO(), io.BytesIO()
        export_tar(str(root), out)
        export_tar(str(root), again)
        assert out.getvalue() == again.getvalue()
        before = tree(root)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        assert archive.getmember("d/f").mode == 0o4755
    driver.apply_layer(name_of(8), None, io.BytesIO(out.getvalue()))
    driver.create_container("c2", name_of(8))
    after = tree(Path(driver.mount("c2")))
    driver.unmount("c2")
    assert after == before


def test_a_hundred_and_fifty_layers(tmp_path: Path) -> None:
    driver = open_driver("overlay2", tmp_path)
    layers = [layer(entry(f"f{number}"), entry("same", data=b"%d" % number)) for number in range(150)]
    with container(driver, *layers) as root:
        assert len([name for name in os.listdir(root) if name.startswith("f")]) == 150
        assert (root / "same").read_bytes() == b"149"
    driver.remove_container("c1")


def test_old_kernels_get_short_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampan.storage.overlay_mount._by_descriptor", False)
    here = os.getcwd()
    test_a_hundred_and_fifty_layers(tmp_path)
    assert os.getcwd() == here


def test_mounts_are_counted(driver: Driver) -> None:
    with container(driver, layer(entry("f"))) as root:
        assert driver.mount("c1") == str(root)
        driver.unmount("c1")
        assert (root / "f").exists()
    driver.unmount("c1")
    assert driver.mounted() == set()


def test_layers_read_only(driver: Driver) -> None:
    driver.apply_layer(name_of(1), None, io.BytesIO(layer(entry("f", data=b"1"))))
    path = Path(driver.mount_layers_ro(name_of(1)))
    assert (path / "f").read_bytes() == b"1"
    if driver.name != "vfs":
        with pytest.raises(OSError, match="Read-only"):
            (path / "g").touch()
    driver.unmount_layers_ro(name_of(1))


def test_what_is_in_use_stays(driver: Driver) -> None:
    with container(driver, layer(entry("a")), layer(entry("b"))):
        for number in (1, 2):
            with pytest.raises(Conflict):
                driver.remove_layer(name_of(number))
        assert driver.used_layers() == {name_of(2)}
        with pytest.raises(Conflict):
            driver.create_container("c1", None)
    driver.remove_container("c1")
    for number in (2, 1):
        driver.remove_layer(name_of(number))
    assert driver.layers() == set()
    with pytest.raises(NoSuchLayer):
        driver.create_container("c2", name_of(1))
    with pytest.raises(NoSuchLayer):
        driver.mount("c2")


def test_a_broken_layer_leaves_nothing(driver: Driver, root: Path) -> None:
    good = layer(entry("a", data=b"x" * 2000), entry("b"))

    def refuse() -> None:
        raise InvalidParameter("wrong digest")

    for data, verify in ((good[:1500], None), (b"noise" * 500, None), (good, refuse)):
        with pytest.raises(InvalidParameter):
            driver.apply_layer(name_of(1), None, io.BytesIO(data), verify)
        assert not driver.has_layer(name_of(1))
        assert os.listdir(root / driver.name / "stage") == []


def test_after_a_crash(driver: Driver, root: Path) -> None:
    driver.apply_layer(name_of(1), None, io.BytesIO(layer(entry("a"))))
    for container_id in ("c1", "c2"):
        driver.create_container(container_id, name_of(1))
        driver.mount(container_id)
    home = root / driver.name
    (home / "stage" / "half").mkdir()
    (home / "layers" / ("f" * 64)).mkdir()
    if driver.name in (
        "overlay2",
        "fuse-overlayfs",
    ):  # killed between the short link and the layer's own name
        os.symlink(f"../layers/{'e' * 64}/diff", home / "l" / "0badcafe")
    again = open_driver(None, root)
    assert again.name == driver.name
    again.repair({"c1"})
    again.purge_trash()
    assert os.listdir(home / "stage") == os.listdir(home / "trash") == []
    assert os.listdir(home / "containers") == ["c1"]
    assert again.layers() == {name_of(1)}
    assert again.stray({"c1"}) == []
    again.unmount("c1")
    assert again.mounted() == set()


def test_the_same_layer_from_many_threads(driver: Driver) -> None:
    data = layer(*(entry(f"d{number}/f", data=b"x" * 100) for number in range(50)))
    failures: list[BaseException] = []

    def work() -> None:
        try:
            driver.apply_layer(name_of(1), None, io.BytesIO(data))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert driver.layers() == {name_of(1)}


def test_overlays_do_not_stand_on_overlays(tmp_path: Path) -> None:
    outer = open_driver("overlay2", tmp_path)
    outer.create_container("c1", None)
    root = Path(outer.mount("c1"))
    try:
        with pytest.raises(Exception, match="overlay2 cannot be used in"):
            open_driver("overlay2", root)
        assert open_driver(None, root).name == "vfs"
    finally:
        outer.remove_container("c1")
    with pytest.raises(InvalidParameter, match="'zfs' is not known"):
        open_driver("zfs", tmp_path)


def test_unknown_members_are_refused(driver: Driver) -> None:
    info, data = entry("v")
    info.type = b"V"
    with pytest.raises(InvalidLayer, match="type 'V'"):
        driver.apply_layer(name_of(1), None, io.BytesIO(layer((info, data))))


def test_removals_at_once_leave_nothing(driver: Driver, root: Path) -> None:
    names = [f"many{number}" for number in range(100)]
    for name in names:
        driver.create_container(name, None)
    failures: list[BaseException] = []

    def remove(mine: list[str]) -> None:
        try:
            for name in mine:
                driver.remove_container(name)
                driver.purge_trash()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=remove, args=(names[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    driver.purge_trash()
    assert not failures
    assert [path for kind in ("containers", "trash") for path in root.glob(f"*/{kind}/*")] == []
