"""Names, signals, mount points and detach keys: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import pytest

from sampan.engine.model import BindOptions, ContainerConfig, HostConfig, Mount, TmpfsOptions
from sampan.engine.mountpoints import bind_point, collect, mount_point, tmpfs_points
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
