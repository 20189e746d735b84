"""Names, labels, filters and removal of volumes."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sampan.database import Database
from sampan.errors import Conflict, InvalidParameter, NotFound, Unavailable
from sampan.linux import quota
from sampan.volumes import VolumeService, describe, mounting
from sampan.volumes.options import size_bytes, without_password


@pytest.fixture
def volumes(tmp_path: Path) -> VolumeService:
    return VolumeService(tmp_path / "volumes", Database(tmp_path / "db"))


@pytest.mark.parametrize("name", ["data", "a1", "A_b.c-d", "0x"])
def test_a_named_volume_is_a_directory(volumes: VolumeService, name: str, tmp_path: Path) -> None:
    volume, new = volumes.create(name, labels={"k": "v"})
    assert new
    assert volume.mountpoint == tmp_path / "volumes" / name / "_data"
    assert volume.mountpoint.stat().st_mode & 0o777 == 0o755
    assert volumes.create(name) == (volume, False) and volumes.get(name) == volume
    assert describe(volume)["Labels"] == {"k": "v"}


@pytest.mark.parametrize("name", ["../x", "/etc", ".hid", "-x", "a/b", "a b", "ä1", "..", "a\n", "x" * 256])
def test_a_name_that_could_leave_the_directory_is_refused(volumes: VolumeService, name: str) -> None:
    with pytest.raises(InvalidParameter) as refused:
        volumes.create(name)
    assert refused.value.message == (
        f'create {name}: "{name}" includes invalid characters for a local volume name, only '
        '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
    )


def test_a_single_letter_is_too_short(volumes: VolumeService) -> None:
    with pytest.raises(InvalidParameter, match="too short"):
        volumes.create("a")


def test_an_anonymous_volume_says_so(volumes: VolumeService) -> None:
    volume = volumes.create(None)[0]
    assert len(volume.name) == 64 and volume.anonymous
    assert not volumes.create("named")[0].anonymous


def test_what_is_not_offered_is_refused_by_name(volumes: VolumeService) -> None:
    with pytest.raises(NotFound, match="rexray"):
        volumes.create("far", driver="rexray")
    assert volumes.list() == []


def test_servers_that_do_not_answer_keep_nobody_else_waiting(
    volumes: VolumeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = threading.Semaphore(0), threading.Event()

    def mount(*_: object) -> None:  # as the kernel's mount(2), which nobody can interrupt
        asked.release()
        answered.wait(60)

    monkeypatch.setattr(mounting, "mount", mount)
    monkeypatch.setattr("sampan.volumes.service._PATIENCE_S", 0.05)
    for number in range(9):
        volumes.create(f"far{number}", options={"type": "nfs", "o": "addr=192.0.2.9", "device": ":/"})
    with ThreadPoolExecutor(8) as starts:
        held = [starts.submit(volumes.hold, f"far{number}", "c1") for number in range(8)]
        for _ in held:
            assert asked.acquire(timeout=30)
        with pytest.raises(Unavailable, match="far3 is being mounted for another container"):
            volumes.hold("far3", "c2")
        with pytest.raises(Unavailable, match="8 others are waiting"):
            volumes.hold("far8", "c2")
        volumes.create("near")
        assert volumes.hold("near", "c2") and volumes.remove("near") and len(volumes.list()) == 9
        volumes.let_go("c2")
        answered.set()
        assert all(one.result(30) for one in held)
    assert volumes.hold("far8", "c2")


def test_a_server_that_nobody_knows_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for options in (
        {"type": "nfs", "o": "rw,addr=nas.example", "device": ":/"},
        {"type": "cifs", "o": "username=me", "device": "//nas.example/share"},
    ):
        with pytest.raises(InvalidParameter) as refused:
            mounting.mount(tmp_path, options)
        said = "error resolving passed in network volume address: nas.example: Name or service not known"
        assert refused.value.message == said


def test_removal(volumes: VolumeService) -> None:
    volume, _ = volumes.create("data", container_id="c2")
    volumes.refer("data", "c1")
    (volume.mountpoint / "file").write_text("x")
    with pytest.raises(Conflict) as refused:
        volumes.remove("data")
    assert refused.value.message == "remove data: volume is in use - [c1, c2]"
    volumes.forget("c1")
    assert volumes.remove("data", but_for="c2")
    assert not volume.mountpoint.parent.exists()
    assert len(list(volume.mountpoint.parent.parent.iterdir())) == 1  # in the trash
    volumes.purge_trash()
    assert list(volume.mountpoint.parent.parent.iterdir()) == []
    with pytest.raises(NotFound, match="no such volume"):
        volumes.remove("data")
    assert not volumes.remove("data", force=True)
    with pytest.raises(NotFound, match="no such volume"):
        volumes.refer("data", "c1")


def test_filters(volumes: VolumeService) -> None:
    volumes.create("web-data", labels={"tier": "front"})
    volumes.create("db-data", labels={"tier": "back", "keep": ""}, container_id="c1")

    def names(**filters: list[str]) -> list[str]:
        return [volume.name for volume in volumes.list(filters)]

    assert names() == ["db-data", "web-data"]
    assert names(name=["web", "nothing"]) == ["web-data"]
    assert names(label=["tier"]) == ["db-data", "web-data"]
    assert names(label=["tier=back", "keep"]) == ["db-data"]
    assert names(dangling=["true"]) == ["web-data"]
    assert names(dangling=["0"]) == ["db-data"]
    assert names(driver=["other"]) == []
    with pytest.raises(InvalidParameter, match="colour"):
        names(colour=["red"])


def test_prune_takes_anonymous_ones_and_all_when_asked(volumes: VolumeService) -> None:
    used, unused = volumes.create(None, container_id="c1")[0], volumes.create(None)[0]
    volumes.create("named")
    (unused.mountpoint / "file").write_bytes(b"x" * 10000)
    removed, freed_bytes = volumes.prune()
    assert removed == [unused.name] and freed_bytes >= 10000
    assert volumes.prune({"all": ["true"]})[0] == ["named"]
    assert [volume.name for volume in volumes.list()] == [used.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": "red"}, 'create data: invalid option: "colour"'),
        ({"type": "tmpfs"}, 'create data: missing required option: "device"'),
        ({"device": "/x"}, 'create data: missing required option: "type"'),
        ({"o": "bind"}, 'create data: missing required option: "device"'),
        ({"size": "abc"}, "create data: invalid size: 'abc'"),
        ({"type": "none", "device": "/x", "o": "ro,remount"}, "remount"),
        ({"type": "none", "device": "/x", "size": "1m"}, "size limits what lies on the engine's own disk"),
        (
            {"type": "cifs", "device": "//host:1445/share", "o": ""},
            "create data: port not allowed in CIFS device URL, include 'port' in 'o='",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(
    volumes: VolumeService, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidParameter) as refused:
        volumes.create("data", options=options)
    assert message in refused.value.message
    assert volumes.list() == []


def test_options_are_kept_and_shown(volumes: VolumeService) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    volumes.create("data", options=options)
    assert describe(volumes.get("data"))["Options"] == options


@pytest.mark.parametrize(("text", "size"), [("", 0), ("7", 7), ("64m", 64 << 20), ("1.5GiB", 3 << 29)])
def test_sizes(text: str, size: int) -> None:
    assert size_bytes({"size": text}) == size


def test_passwords_are_not_shown() -> None:
    text = "addr=192.0.2.7,username=u,password=geheim,vers=3"
    assert without_password(text) == "addr=192.0.2.7,username=u,password=********,vers=3"


def test_the_table_of_an_older_release_gets_its_new_column(tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    database.script(
        "CREATE TABLE volumes (name TEXT PRIMARY KEY, created_ns INTEGER NOT NULL, labels TEXT NOT NULL,"
        " populated INTEGER NOT NULL);"
    )
    database.execute("INSERT INTO volumes VALUES ('old', 7, '{}', 1)")
    volume = VolumeService(tmp_path / "volumes", database).get("old")
    assert (volume.name, volume.options) == ("old", {})


def test_what_a_crash_cut_short(tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    before = VolumeService(tmp_path / "volumes", database)
    for name in ("removed", "filled-half", "kept"):
        before.create(name)
        (before.get(name).mountpoint / "file").write_text(name)
    root = tmp_path / "volumes"
    before.remove("removed")
    database.execute("INSERT INTO volumes VALUES ('removed', 7, '{}', 0, '{}')")  # as if not committed
    database.execute("UPDATE volumes SET populated = 2 WHERE name = 'filled-half'")
    (root / "about-to-be" / "_data").mkdir(parents=True)
    (root / "forgotten" / "_data").mkdir(parents=True)
    (root / "forgotten" / "_data" / "file").write_text("precious")
    after = VolumeService(root, database)
    after.purge_trash()
    assert [volume.name for volume in after.list()] == ["filled-half", "forgotten", "kept"]
    assert sorted(path.name for path in root.iterdir()) == ["filled-half", "forgotten", "kept"]
    assert list(after.get("filled-half").mountpoint.iterdir()) == []
    assert (after.get("kept").mountpoint / "file").read_text() == "kept"
    assert (after.get("forgotten").mountpoint / "file").read_text() == "precious"


def test_only_the_recorded_project_of_a_volume_loses_its_limit(
    volumes: VolumeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[int] = []
    monkeypatch.setattr(quota, "release", lambda _, project: released.append(project))
    monkeypatch.setattr(quota, "project_of", lambda _: 42)  # the administrator's, or another container's
    limited, other = volumes.create("limited")[0], volumes.create("other")[0]
    (limited.mountpoint.parent / "project").write_text("1234567")
    volumes.remove("limited")
    volumes.remove("other")
    assert released == []
    volumes.purge_trash()
    assert released == [1234567]
    assert not other.mountpoint.exists() and not list((tmp_path / "volumes").iterdir())


def test_a_volume_that_was_about_to_be_limited_leaves_no_limit(
    volumes: VolumeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released: list[int] = []
    monkeypatch.setattr(quota, "release", lambda _, project: released.append(project))
    half = tmp_path / "volumes/half"
    (half / "_data").mkdir(parents=True)
    (half / "project").write_text("1234567")
    VolumeService(tmp_path / "volumes", Database(tmp_path / "db"))  # a daemon starts after a crash
    assert released == [1234567] and not half.exists()
