"""The registry's store, its limits, and what the collector takes and leaves; time is moved by hand."""

import json
import os

import pytest

from sampan.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from sampan.registry.server import catalog, collector, store, uploads
from sampan.registry.server.collector import Collector
from sampan.registry.server.faults import (
    Denied,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    TooLarge,
    UploadBusy,
    UploadUnknown,
)
from sampan.registry.server.manifests import parse
from sampan.registry.server.names import digest_of
from sampan.registry.server.store import Limits, Store


class Clock:
    """`time.time` of the modules under test."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    for module in (catalog, collector, store, uploads):
        monkeypatch.setattr(module, "time", found)
    return found


@pytest.fixture
def make(tmp_path):
    opened = []

    def fresh(**limits) -> Store:
        opened.append(Store(tmp_path / "data", Limits(**limits)))
        return opened[-1]

    yield fresh
    for one in opened:
        one.close()


def push(registry: Store, name: str, data: bytes) -> str:
    upload = registry.uploads.begin(name)
    with upload.held():
        upload.append([data[:3], data[3:]])
        registry.commit(upload, digest_of(data))
    return digest_of(data)


def manifest(registry: Store, name: str, tag: str, *layers: bytes, **members) -> str:
    config = push(registry, name, b"{}")
    document = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config, "size": 2},
        "layers": [{"mediaType": "x", "digest": digest_of(one), "size": len(one)} for one in layers],
        **members,
    }  # fmt: skip
    data = json.dumps(document).encode()
    return registry.put_manifest(name, tag or digest_of(data), data, OCI_MANIFEST)[0]


def blobs(registry: Store) -> set[str]:
    return {digest for digest, _ in registry.blobs.files()}


def test_uploads(make):
    registry = make()
    upload = registry.uploads.begin("a/b")
    with upload.held():
        upload.append([b"abc", b"def"])
        with pytest.raises(UploadBusy), upload.held():
            pass
        upload.cut(3)
        upload.append([b"xyz"])
        assert registry.commit(upload, digest_of(b"abcxyz")) == 6
    with pytest.raises(UploadUnknown), upload.held():
        pass
    fd, size = registry.open_blob("a/b", digest_of(b"abcxyz"))
    assert (os.read(fd, 100), size) == (b"abcxyz", 6)
    os.close(fd)
    assert registry.open_blob("c/d", digest_of(b"abcxyz")) is None


def test_an_upload_with_another_digest_is_gone(make):
    registry = make()
    upload = registry.uploads.begin("a/b")
    with upload.held(), pytest.raises(DigestInvalid):
        upload.append([b"abc"])
        registry.commit(upload, digest_of(b"other"))
    with pytest.raises(UploadUnknown):
        registry.uploads.get("a/b", upload.id)
    assert blobs(registry) == set()


def test_an_upload_is_of_one_repository(make):
    registry = make()
    upload = registry.uploads.begin("a/b")
    with pytest.raises(UploadUnknown):
        registry.uploads.get("c/d", upload.id)


def test_limits(make):
    registry = make(blob_bytes=100, repository_bytes=150, total_bytes=220, manifest_bytes=50)
    registry.check_room("a", 100)
    with pytest.raises(TooLarge):
        registry.check_room("a", 101)
    with pytest.raises(TooLarge):
        registry.check_room("a", 1, 100)
    push(registry, "a", bytes(100))
    registry.check_room("a", 50)
    with pytest.raises(Denied, match="a may hold"):
        registry.check_room("a", 51)
    push(registry, "b", bytes(range(90)))
    with pytest.raises(Denied, match="in all"):
        registry.check_room("c", 31)
    open_one = registry.uploads.begin("c")
    with open_one.held():
        open_one.append([bytes(20)])
    with pytest.raises(Denied, match="in all"):
        registry.check_room("d", 11)
    with pytest.raises(TooLarge):
        registry.put_manifest("a", "v1", bytes(51), OCI_MANIFEST)


def test_a_shared_blob_counts_once_in_all(make):
    registry = make()
    push(registry, "a", bytes(100))
    push(registry, "b", bytes(100))
    assert registry.total() == 100
    assert registry.catalog.repository_bytes("b") == 100


def test_manifests_need_what_they_name(make):
    registry = make()
    with pytest.raises(ManifestBlobUnknown) as caught:
        manifest(registry, "a/b", "v1", b"missing")
    assert caught.value.detail == [{"digest": digest_of(b"missing")}]
    assert registry.catalog.manifest("a/b", "v1") is None
    assert registry.put_manifest(
        "a/b", "v1",
        json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode(), OCI_INDEX,
    )  # fmt: skip


# --- the collector ---


def test_what_is_new_or_asked_for_stays(make, clock):
    registry = make(grace_s=100)
    collect = Collector(registry).collect
    asked, other = push(registry, "a", b"asked for"), push(registry, "a", b"never again")
    assert collect().blobs == 0
    clock.now += 90
    assert registry.has_blob("a", asked) == 9
    clock.now += 20
    assert collect().blobs == 1
    assert blobs(registry) == {asked}
    assert registry.has_blob("a", other) is None
    clock.now += 200
    assert collect().blobs == 1


def test_an_open_upload_protects_what_came_before_it(make, clock):
    registry = make(grace_s=100)
    collect = Collector(registry).collect
    old = push(registry, "a", b"long ago")
    clock.now += 150
    fresh = push(registry, "a", b"just now")
    elsewhere = push(registry, "b", b"of another push")
    clock.now += 50
    upload = registry.uploads.begin("a")
    clock.now += 10_000
    upload.touched = clock.now
    assert collect().blobs == 2
    assert blobs(registry) == {fresh}
    assert {old, elsewhere}.isdisjoint(blobs(registry))
    with upload.held():
        upload.append([b"a large one"])
        registry.commit(upload, digest_of(b"a large one"))
    clock.now += 99
    assert collect().blobs == 0  # its push may still be about to name all of them
    digest = manifest(registry, "a", "v1", b"just now", b"a large one")
    clock.now += 10_000
    assert collect().blobs == 0
    assert registry.catalog.manifest("a", digest)


def test_mounts_refresh(make, clock):
    registry = make(grace_s=100)
    digest = push(registry, "a", b"shared")
    clock.now += 200
    assert registry.catalog.mount("b", digest, "a")
    report = Collector(registry).collect()
    assert (report.links, report.blobs) == (1, 0)  # a's is old, b's is new
    assert registry.has_blob("a", digest) is None
    assert registry.has_blob("b", digest) == 6


def test_untagged(make, clock):
    registry = make(grace_s=100)
    first = manifest(registry, "a", "v1")
    clock.now += 50
    second = manifest(registry, "a", "v1", annotations={"n": "2"})
    signature = manifest(
        registry,
        "a",
        "",
        artifactType="sig",
        subject={"mediaType": OCI_MANIFEST, "digest": second, "size": 1},
    )
    lost = manifest(
        registry, "a", "", artifactType="sig", subject={"mediaType": OCI_MANIFEST, "digest": first, "size": 1}
    )
    clock.now += 60
    keeper, remover = Collector(registry), Collector(registry, untagged=True)
    assert keeper.collect().manifests == 0
    assert remover.collect().manifests == 1  # the first; what is about it is still new
    assert registry.catalog.manifest("a", first) is None
    clock.now += 100
    assert remover.collect().manifests == 1
    assert registry.catalog.manifest("a", lost) is None
    assert registry.catalog.manifest("a", signature)
    registry.catalog.delete_tag("a", "v1")
    report = remover.collect()
    assert (report.manifests, report.blobs) == (2, 1)
    assert registry.catalog.count() == 0
    assert registry.total() == 0


def test_a_blob_being_collected_is_not_promised(make, clock, monkeypatch):
    """Between the last look and the removal, a client that asks is told to send the blob again."""
    registry = make(grace_s=100)
    digest = push(registry, "a", b"on the brink")
    clock.now += 200
    told = []
    execute = registry.catalog.execute

    def interposed(statement, parameters=()):
        if statement.startswith("DELETE FROM links"):
            told.append(registry.has_blob("a", digest))
        return execute(statement, parameters)

    monkeypatch.setattr(registry.catalog, "execute", interposed)
    assert Collector(registry).collect().blobs == 1
    assert told == [None]
    assert push(registry, "a", b"on the brink") == digest
    assert registry.has_blob("a", digest) == 12


def test_expired_uploads(make, clock):
    registry = make(upload_expiry_s=50)
    stale, live = registry.uploads.begin("a"), registry.uploads.begin("a")
    stale.touched, live.touched = clock.now - 51, clock.now
    assert Collector(registry).collect().uploads == 1
    assert registry.uploads.all() == [live]
    assert not stale.directory.exists()


# --- manifests ---


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"schemaVersion": 1}, "schema 1"),
        ({"schemaVersion": 3}, "schemaVersion must be 2"),
        ({"mediaType": OCI_INDEX}, "does not match"),
        ({"manifests": []}, "has no manifests"),
        ({"config": None}, "a descriptor is an object"),
        ({"config": {"digest": "x", "size": 1}}, "invalid digest"),
        ({"config": {"digest": digest_of(b""), "size": -1}}, "invalid size"),
        ({"config": {"digest": digest_of(b""), "size": True}}, "invalid size"),
        ({"config": {"digest": digest_of(b""), "size": 1 << 70}}, "invalid size"),
        ({"layers": {}}, "a list of layers"),
        ({"annotations": {"a": 1}}, "annotations"),
        ({"artifactType": 5}, "artifactType"),
        ({"subject": "x"}, "subject"),
    ],
)
def test_manifests_that_are_none(members, text):
    entry = {"mediaType": OCI_CONFIG, "digest": digest_of(b""), "size": 0}
    good = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry, "layers": [entry]}
    assert len(parse(json.dumps(good).encode(), OCI_MANIFEST).children) == 2
    with pytest.raises(ManifestInvalid, match=text):
        parse(json.dumps({**good, **members}).encode(), OCI_MANIFEST)


def test_manifest_without_a_type_of_its_own():
    entry = {"mediaType": OCI_CONFIG, "digest": digest_of(b""), "size": 0}
    data = json.dumps({"schemaVersion": 2, "config": entry, "layers": []}).encode()
    assert parse(data, OCI_MANIFEST).media_type == OCI_MANIFEST
    assert parse(data, OCI_MANIFEST + "; charset=utf-8").artifact_type == OCI_CONFIG
    with pytest.raises(ManifestInvalid, match="unsupported media type"):
        parse(data, "text/html")
    with pytest.raises(ManifestInvalid, match="unsupported media type"):
        parse(data, "application/json")
