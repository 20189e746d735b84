"""Names, signals, mount points and detach keys: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import pytest

from sampan.engine.model import (
    BindOptions,
    Container,
    ContainerConfig,
    HostConfig,
    Mount,
    MountPoint,
    TmpfsOptions,
    VolumeOptions,
)
from sampan.engine.mountpoints import bind_point, collect, disk_owner, mount_point, tmpfs_points
from sampan.engine.names import check_name, random_name
from sampan.engine.signals import parse_signal
from sampan.errors import InvalidParameter, SampanError


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("KILL", 9),
        ("SIGKILL", 9),
        ("sigterm", 15),
        ("9", 9),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("RTMAX-1", 63),
    ],
)
def test_signals_are_known_by_name_and_number(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "KILLL", "RTMIN+99", "-1", "SIGRT"])
def test_unknown_signals_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="Invalid signal"):
        parse_signal(text)


def test_names_lose_their_slash_and_bad_ones_are_refused() -> None:
    assert check_name("/web.1_a-b") == "web.1_a-b"
    for bad in ("a", "-x", "a b", "ä1", "x/y", "", "ab\n"):
        with pytest.raises(InvalidParameter, match="only \\[a-zA-Z0-9\\]"):
            check_name(bad)


def test_random_names_are_valid_names() -> None:
    for attempt in range(50):
        assert check_name(random_name(attempt))


def test_a_bind_with_options() -> None:
    point = bind_point("/src/../data:/in/:ro,rslave")
    assert (point.type, point.source, point.destination) == ("bind", "/data", "/in")
    assert (point.rw, point.propagation, point.mode) == (False, "rslave", "ro,rslave")


def test_a_name_is_a_volume() -> None:
    point = bind_point("cache:/var/cache:nocopy")
    assert (point.type, point.name, point.options) == ("volume", "cache", ["nocopy"])


@pytest.mark.parametrize(
    "text",
    ["", "/a", "/a:b", "/a:/", "/a:/b:c:d", ":/b", "/a:/b:ro,rw", "/a:/b:fast", "cache:/x:rshared", "./a:/b"],
)
def test_binds_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"invalid (volume specification|mode)"):
        bind_point(text)


@pytest.mark.parametrize(
    "mount",
    [
        Mount(type="bind", source="/no/such/directory", target="/x"),
        Mount(type="bind", source="relative", target="/x"),
        Mount(type="bind", source="/tmp", target="x"),
        Mount(type="bind", source="/tmp", target="/"),
        Mount(type="tmpfs", source="/tmp", target="/x"),
        Mount(type="tmpfs", target="/x", bind_options=BindOptions()),
        Mount(type="bind", source="/tmp", target="/x", bind_options=BindOptions(propagation="sideways")),
        Mount(type="npipe", source="/tmp", target="/x"),
        Mount(type="volume", target=""),
    ],
)
def test_mounts_that_mean_nothing_are_refused(mount: Mount) -> None:
    with pytest.raises(SampanError):
        mount_point(mount)


def test_tmpfs_mounts_carry_their_options() -> None:
    point = mount_point(
        Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=4096, mode=0o1770))
    )
    assert point.options == ["noexec", "nosuid", "nodev", "size=4096", "mode=1770"]
    twice = TmpfsOptions(options=[["exec"], ["exec"]])
    assert mount_point(Mount(type="tmpfs", target="/t", tmpfs_options=twice)).options == ["nosuid", "nodev"]
    (flag,) = tmpfs_points(HostConfig(tmpfs={"/run": "exec,size=1m"}))
    assert flag.options == ["noexec", "nosuid", "nodev", "exec", "size=1m"]


def _no_container(reference: str) -> object:
    raise AssertionError(reference)


def test_two_mounts_on_one_place_are_refused() -> None:
    host_config = HostConfig(binds=["/a:/x", "/b:/x/"])
    with pytest.raises(InvalidParameter, match="Duplicate mount point: /x"):
        collect(ContainerConfig(), host_config, _no_container)  # type: ignore[arg-type]


def test_the_images_volumes_give_way_to_the_users() -> None:
    config = ContainerConfig(volumes={"/data": {}, "/cache": {}, "/run": {}})
    host_config = HostConfig(binds=["/srv:/data"], tmpfs={"/run": ""})
    points = collect(config, host_config, _no_container)  # type: ignore[arg-type]
    assert [(p.type, p.destination) for p in points] == [("bind", "/data"), ("volume", "/cache")]


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("match-user", "1000:100"),
        ("7", "7:7"),
        ("7:8", "7:8"),
        ("007-08", "7:8"),
        ("4294967294", "4294967294:4294967294"),
    ],
)
def test_whose_the_files_are_on_the_disk(text: str, owner: str) -> None:
    assert disk_owner(text, (1000, 100)) == owner


@pytest.mark.parametrize("text", ["", "root", "1:2:3", "-1", "1:", "4294967295", "1 2", "match_user"])
def test_nobody_is_called_that(text: str) -> None:
    with pytest.raises(InvalidParameter, match="expected match-user, UID:GID or UID"):
        disk_owner(text, (1000, 100))


def test_who_comes_by_tcp_has_no_user_here() -> None:
    for given in (
        lambda: bind_point("/a:/b:idmap"),
        lambda: mount_point(Mount(type="volume", source="data", target="/x", id_map="match-user")),
    ):
        with pytest.raises(InvalidParameter, match="only a client at the unix socket has a user"):
            given()
    assert bind_point("/a:/b:ro,idmap=7").disk_owner == "7:7"


def test_words_of_ours_in_a_mode() -> None:
    point = bind_point("/a:/b:U,idmap,ro,rslave", (1000, 100))
    assert (point.disk_owner, point.rw, point.propagation) == ("1000:100", False, "rslave")
    assert "chown" in point.options
    for mode in ("U,U", "idmap,idmap=7"):
        with pytest.raises(InvalidParameter, match=f"invalid mode: {mode}"):
            bind_point(f"/a:/b:{mode}", (1000, 100))


@pytest.mark.parametrize("path", ["../x", "/etc", "a/../../b", "a\0b", ".."])
def test_parts_that_would_lead_out(path: str) -> None:
    with pytest.raises(InvalidParameter, match="subpath must be a relative path within the volume"):
        mount_point(
            Mount(type="volume", source="data", target="/x", volume_options=VolumeOptions(subpath=path))
        )


def test_what_another_container_has_is_inherited() -> None:
    donor = Container("id", "donor", 0, "", ContainerConfig(), HostConfig())
    donor.mounts = [
        MountPoint(
            type="volume", name="data", source="/v/data/_data", destination="/d", mode="z", subpath="a"
        ),
        MountPoint(type="bind", source="/s", destination="/b", options=["create-source"], disk_owner="7:7"),
        MountPoint(type="tmpfs", destination="/t"),
    ]
    host_config = HostConfig(volumes_from=["donor:ro,z"])
    volume, bind = collect(ContainerConfig(), host_config, lambda _: donor)
    assert (volume.name, volume.source, volume.subpath) == ("data", "/v/data/_data", "a")
    assert (volume.rw, volume.mode, volume.options) == (False, "", ["nocopy"])
    assert (bind.rw, bind.options, bind.disk_owner) == (False, [], "7:7")
    assert donor.mounts[0].rw and donor.mounts[1].options == ["create-source"]
