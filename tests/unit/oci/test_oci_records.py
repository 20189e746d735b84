"""Dataclasses to JSON and back: names, strictness, and that nothing that means something is dropped."""

from __future__ import annotations

import pytest

from sampan.engine.model import Container, ContainerConfig, HostConfig
from sampan.errors import InvalidParameter
from sampan.oci.quantities import parse_size
from sampan.oci.records import decode, encode


def test_a_container_survives_the_database() -> None:
    config = ContainerConfig(image="x", env=["A=b"], labels={"l": "1"})
    container = Container("id", "name", 1, "sha256:0", config, HostConfig(binds=["/a:/b"], nano_cpus=5))
    assert decode(Container, encode(container)) == container


def test_names_are_dockers() -> None:
    shape = encode(HostConfig())
    assert {"CpusetCpus", "NanoCpus", "UTSMode", "BlkioDeviceReadIOps", "ContainerIDFile"} <= set(shape)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"Memory": "5"}, "HostConfig.Memory: expected a number, not a text"),
        ({"Memory": True}, "HostConfig.Memory: expected a number, not a boolean"),
        ({"Binds": "a:b"}, "HostConfig.Binds: expected a list"),
        ({"Ulimits": [{"Name": 5}]}, "HostConfig.Ulimits\\[0\\].Name: expected a text"),
        ({"Teleport": "yes"}, "HostConfig.Teleport: unknown field"),
        ([], "HostConfig: expected an object"),
    ],
)
def test_wrong_bodies_are_refused_by_name(body: object, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        decode(HostConfig, body, "HostConfig")


def test_empty_unknown_members_say_nothing() -> None:
    assert decode(HostConfig, {"Teleport": None, "Warp": [], "Speed": 0}) == HostConfig()


def test_member_names_are_matched_without_regard_to_case() -> None:
    assert decode(HostConfig, {"memory": 7}).memory == 7


@pytest.mark.parametrize(
    ("text", "size"), [("512m", 1 << 29), ("1.5GiB", 3 << 29), ("20", 20), ("2kb", 2048)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "nan", "1mm", "inf"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        parse_size(text)
