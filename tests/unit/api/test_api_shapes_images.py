"""Images, volumes and networks as JSON are what the Engine API's description says."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from sampan.api.routes.image_listing import glob
from sampan.api.shapes import images as shapes
from sampan.http import NEWEST, ApiVersion
from sampan.images import HistoryItem, Image
from sampan.network import Endpoint, Network
from sampan.network import describe as describe_network
from sampan.oci.image import Descriptor, ImageConfig, ImageDocument
from sampan.oci.media_types import OCI_MANIFEST
from sampan.oci.reference import parse
from sampan.volumes import Volume
from sampan.volumes import describe as describe_volume

SPEC = Path(__file__).parents[2] / "specs" / "docker-engine-api-v1.51.yaml"
DIGEST = "sha256:" + "a" * 64


@functools.cache
def definitions() -> dict[str, Any]:
    loaded = yaml.load(SPEC.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return dict(_nullable(loaded["definitions"]))


def _nullable(node: Any) -> Any:
    """Lists, maps and what says so may be null on the wire, as Go writes its empty ones."""
    if isinstance(node, dict):
        node = {key: _nullable(value) for key, value in node.items() if key not in ("example", "examples")}
        kind = node.get("type")
        if isinstance(kind, str) and (node.get("x-nullable") or kind in ("array", "object")):
            node["type"] = [kind, "null"]
        return node
    return [_nullable(item) for item in node] if isinstance(node, list) else node


def check(name: str, value: Any) -> None:
    schema = {"$ref": f"#/definitions/{name}", "definitions": definitions()}
    jsonschema.Draft4Validator(schema).validate(value)


@pytest.fixture
def image() -> Image:
    config = ImageConfig(env=["A=b"], cmd=["sh"], labels={"x": "y"}, exposed_ports={"80/tcp": {}})
    document = ImageDocument("arm64", "linux", config, [DIGEST], created="2025-01-02T03:04:05.678901234Z")
    document.variant = "v8"
    return Image(DIGEST, document, [parse("busybox:1")], DIGEST, 1234, DIGEST)


def test_summary(image: Image) -> None:
    check("ImageSummary", shapes.summary(image, NEWEST))
    assert shapes.summary(image, NEWEST)["Created"] == 1735787045
    assert "VirtualSize" not in shapes.summary(image, NEWEST)
    assert shapes.summary(image, ApiVersion(1, 43))["VirtualSize"] == 1234
    image.names = []
    assert shapes.summary(image, ApiVersion(1, 42))["RepoTags"] == ["<none>:<none>"]
    assert shapes.summary(image, NEWEST)["RepoTags"] == []


def test_inspect(image: Image) -> None:
    descriptor = Descriptor(OCI_MANIFEST, DIGEST, 77)
    places = {"UpperDir": "/u"}
    shape = shapes.inspect(image, NEWEST, "overlay2", places, descriptor)
    shape["Manifests"] = [shapes.manifest_summary(image, descriptor, 1000, ["c"])]
    data = shape["Manifests"][0]["ImageData"]
    described = {
        **data,
        "UnpackedSize": 1234,
    }  # demanded, but defined nowhere
    check("ImageInspect", {**shape, "Manifests": [{**shape["Manifests"][0], "ImageData": described}]})
    assert shape["GraphDriver"] == {"Name": "overlay2", "Data": places}
    assert shape["Descriptor"] == {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 77}
    assert shape["Manifests"][0]["Size"] == {"Content": 1000, "Total": 2234}
    assert shape["Manifests"][0]["ImageData"]["Platform"]["variant"] == "v8"
    assert "Hostname" not in shape["Config"]
    assert "Hostname" in shapes.inspect(image, ApiVersion(1, 49), "overlay2", {})["Config"]
    assert "ContainerConfig" in shapes.inspect(image, ApiVersion(1, 44), "overlay2", {})
    assert shape["Config"]["Cmd"] == ["sh"]
    assert shape["Variant"] == "v8"


def test_history() -> None:
    items = [HistoryItem("<missing>", "2025-01-02T03:04:05Z", "CMD", "", 0)]
    for item in shapes.history(items):
        check("ImageHistoryResponseItem", item)
    assert shapes.history(items)[0]["Created"] == 1735787045


def test_volume_and_network() -> None:
    check("Volume", describe_volume(Volume("v", Path("/v"), 10**18, {"a": "b"})))
    network = Network(DIGEST[7:], "bridge", "bridge", 10**18, "10.0.0.0/24", "10.0.0.1")
    endpoint = Endpoint(DIGEST[7:], DIGEST[7:], "02:42:ac:11:00:02", "10.0.0.2", 24, "10.0.0.1")
    check("Network", describe_network(network, {"c" * 64: ("name", endpoint)}))


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("busy*", "busybox", True),
        ("busy*", "busy/box", False),
        ("*/b?x", "a/box", True),
        ("[bc]ox", "cox", True),
    ],
)
def test_reference_patterns(pattern: str, name: str, matches: bool) -> None:
    assert bool(glob(pattern).fullmatch(name)) is matches
