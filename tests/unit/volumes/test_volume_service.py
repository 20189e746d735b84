"""Names, labels, filters and removal of volumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.database import Database
from sampan.errors import Conflict, InvalidParameter, NotFound, Unsupported
from sampan.volumes import VolumeService, describe


@pytest.fixture
def volumes(tmp_path: Path) -> VolumeService:
    return VolumeService(tmp_path / "volumes", Database(tmp_path / "db"))


@pytest.mark.parametrize("name", ["data", "a1", "A_b.c-d", "0x"])
def test_a_named_volume_is_a_directory(volumes: VolumeService, name: str, tmp_path: Path) -> None:
    volume = volumes.create(name, labels={"k": "v"})
    assert volume.mountpoint == tmp_path / "volumes" / name / "_data"
    assert volume.mountpoint.stat().st_mode & 0o777 == 0o755
    assert volumes.create(name) == volume == volumes.get(name)
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
    volume = volumes.create(None)
    assert len(volume.name) == 64 and volume.anonymous
    assert not volumes.create("named").anonymous


def test_what_is_not_offered_is_refused_by_name(volumes: VolumeService) -> None:
    with pytest.raises(Unsupported, match="device"):
        volumes.create("nfs", options={"type": "nfs", "device": ":/x"})
    with pytest.raises(Unsupported, match="rexray"):
        volumes.create("far", driver="rexray")
    assert volumes.list() == []


def test_removal(volumes: VolumeService) -> None:
    volume = volumes.create("data")
    (volume.mountpoint / "file").write_text("x")
    with pytest.raises(Conflict) as refused:
        volumes.remove("data", in_use=["c1", "c2"])
    assert refused.value.message == "remove data: volume is in use - [c1, c2]"
    volumes.remove("data")
    assert not volume.mountpoint.parent.exists()
    with pytest.raises(NotFound, match="no such volume"):
        volumes.remove("data")
    volumes.remove("data", force=True)


def test_filters(volumes: VolumeService) -> None:
    volumes.create("web-data", labels={"tier": "front"})
    volumes.create("db-data", labels={"tier": "back", "keep": ""})

    def names(**filters: list[str]) -> list[str]:
        return [volume.name for volume in volumes.list(filters, used=["db-data"])]

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
    used, unused = volumes.create(None), volumes.create(None)
    volumes.create("named")
    (unused.mountpoint / "file").write_bytes(b"x" * 10000)
    removed, freed_bytes = volumes.prune([used.name])
    assert removed == [unused.name] and freed_bytes >= 10000
    assert volumes.prune([used.name], {"all": ["true"]})[0] == ["named"]
    assert [volume.name for volume in volumes.list()] == [used.name]
