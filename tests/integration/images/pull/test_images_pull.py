"""Pulling from a real registry: what it brings and tells, indexes and platforms, every file."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sampan.errors import NotFound
from sampan.oci import media_types
from sampan.oci.digest import sha256
from sampan.storage.compression import sniff
from support import needs
from support.images import debian_tar
from support.layers import entry, layer, tree
from support.pulling import Store, big, put_image, statuses
from support.registry import Registry

pytestmark = [pytest.mark.root, needs.program("docker-registry")]


def test_what_a_pull_brings_and_tells(store: Store, registry: Registry) -> None:
    digest = registry.fill("library/one", "v1", [{"a": b"1"}, {"b": b"2"}])
    manifest, _ = registry.manifest("library/one", "v1")
    name = f"{registry.host}/library/one:v1"
    told = statuses(store.pull(name))
    first, second = (blob["digest"][7:19] for blob in manifest["layers"])
    assert told[:3] == [
        "v1: Pulling from library/one", f"{first}: Pulling fs layer", f"{second}: Pulling fs layer",
    ]  # fmt: skip
    for one in (first, second):
        steps = [text.partition(": ")[2] for text in told if text.startswith(one)]
        assert steps == ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"]
    assert told[-2:] == [f"Digest: {digest}", f"Status: Downloaded newer image for {name}"]
    image = store.images.resolve(name)
    assert image.id == manifest["config"]["digest"]
    assert image.repo_tags == [name]
    assert image.repo_digests == [f"{registry.host}/library/one@{digest}"]
    assert image.manifest_digest == digest
    assert store.blobs() == {digest, image.id, *(blob["digest"] for blob in manifest["layers"])}
    assert (store.root / "content/blobs/sha256" / digest[7:]).read_bytes() == registry(
        "GET", f"library/one/manifests/{digest}", headers={"Accept": media_types.OCI_MANIFEST}
    )[2]
    with store.rootfs(name) as root:
        assert [(root / name).read_bytes() for name in ("a", "b")] == [b"1", b"2"]
    assert store.events == [("pull", name, {"name": f"{registry.host}/library/one"})]
    # Once more: nothing to do. Another tag of it: news, but nothing to download.
    assert statuses(store.pull(name))[1:] == [f"Digest: {digest}", f"Status: Image is up to date for {name}"]
    registry.fill("library/one", "v2", [{"a": b"1"}, {"b": b"2"}])
    other = f"{registry.host}/library/one:v2"
    assert statuses(store.pull(other))[1:] == [
        f"Digest: {digest}", f"Status: Downloaded newer image for {other}",
    ]  # fmt: skip


def test_a_moved_tag_leaves_the_old_image_without_it(store: Store, registry: Registry) -> None:
    name = f"{registry.host}/moves:latest"
    registry.fill("moves", "latest", [{"base": b"x"}, {"a": b"1"}])
    store.pull(name)
    before = store.images.resolve(name)
    registry.fill("moves", "latest", [{"base": b"x"}, {"a": b"2"}])
    told = statuses(store.pull(name))
    assert sum("Already exists" in text for text in told) == 1
    old = store.images.resolve(before.id)
    assert old.repo_tags == []
    assert len(old.repo_digests) == 1
    assert store.images.resolve(name).id != before.id


def test_by_digest_there_is_no_tag(store: Store, registry: Registry) -> None:
    digest = registry.fill("by/digest", "x")
    told = statuses(store.pull(f"{registry.host}/by/digest@{digest}"))
    assert told[0] == f"{digest}: Pulling from by/digest"
    image = store.images.resolve(f"{registry.host}/by/digest@{digest}")
    assert (image.repo_tags, image.repo_digests) == ([], [f"{registry.host}/by/digest@{digest}"])


def test_all_tags(store: Store, registry: Registry) -> None:
    for tag in ("1", "2", "3"):
        registry.fill("many", tag, [{"tag": tag.encode()}])
    told = statuses(store.pull(f"{registry.host}/many"))
    assert sorted(text for text in told if "Pulling from" in text) == [
        f"{tag}: Pulling from many" for tag in "123"
    ]
    assert told[-1] == f"Status: Downloaded newer image for {registry.host}/many"
    assert sorted(tag for image in store.images.list() for tag in image.repo_tags) == [
        f"{registry.host}/many:{tag}" for tag in "123"
    ]


def index(registry: Registry, repository: str, tag: str, entries: list[dict[str, Any]], kind: str) -> str:
    return registry.put_manifest(
        repository, tag, {"schemaVersion": 2, "mediaType": kind, "manifests": entries}
    )


def entry_of(digest: str, platform: str, **more: Any) -> dict[str, Any]:
    system, architecture, *variant = platform.split("/")
    told = {"os": system, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
    return {"mediaType": media_types.OCI_MANIFEST, "digest": digest, "platform": told, **more}


@pytest.mark.parametrize("kind", [media_types.OCI_INDEX, media_types.DOCKER_INDEX])
def test_an_index_for_several_platforms(store: Store, registry: Registry, kind: str) -> None:
    repository = "multi" + str(len(kind))
    plain = [(media_types.OCI_LAYER, layer(entry("arch")))]
    made = {
        platform: put_image(
            registry, repository, f"t{number}", [(media_types.OCI_LAYER, layer(entry(platform)))]
        )
        for number, platform in enumerate(("linux/arm/v5", "linux/arm/v6", "linux/386", "linux/amd64"))
    }

    def size(digest: str) -> int:
        return len(
            registry("GET", f"{repository}/manifests/{digest}", headers={"Accept": media_types.OCI_MANIFEST})[
                2
            ]
        )

    entries = [entry_of(digest, platform, size=size(digest)) for platform, digest in made.items()]
    attestation = put_image(registry, repository, "att", plain)
    entries.insert(0, entry_of(attestation, "unknown/unknown", size=size(attestation)))
    marked = {"vnd.docker.reference.type": "attestation-manifest"}
    entries.insert(0, entry_of(attestation, "linux/amd64", size=size(attestation), annotations=marked))
    inner = index(registry, repository, "inner", entries, kind)
    inner_size = len(registry("GET", f"{repository}/manifests/{inner}", headers={"Accept": kind})[2])
    nested = [{"mediaType": kind, "digest": inner, "size": inner_size}]
    outer = index(registry, repository, "outer", nested, kind)
    name = f"{registry.host}/{repository}:outer"
    for platform, taken in (
        ("", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64"),
        ("linux/386", "linux/386"),
        ("linux/arm/v7", "linux/arm/v6"),
        ("linux/arm/v5", "linux/arm/v5"),
        ("linux/arm64", "linux/arm/v6"),
    ):
        told = statuses(store.pull(name, platform))
        image = store.images.resolve(name)
        assert image.manifest_digest == made[taken], platform
        assert f"Digest: {outer}" in told
        assert f"{registry.host}/{repository}@{outer}" in image.repo_digests
    store.images.collect_garbage()
    assert {outer, inner} <= store.blobs()  # as they came
    with pytest.raises(NotFound, match="no matching manifest for linux/arm/v4 in the manifest list entries"):
        store.pull(name, "linux/arm/v4")
    with pytest.raises(NotFound, match="no matching manifest for windows/amd64 in the manifest list entries"):
        store.pull(name, "windows/amd64")


def test_one_image_for_another_platform_comes_with_a_warning(store: Store, registry: Registry) -> None:
    put_image(registry, "foreign", "arm", [big("x", b"1")], platform=("linux", "arm64"))
    told = statuses(store.pull(f"{registry.host}/foreign:arm", "linux/s390x"))
    assert told[-1].startswith("WARNING: image with reference")
    assert store.images.resolve(f"{registry.host}/foreign:arm").architecture == "arm64"


Entry = tuple[object, ...]  # see `support.layers.tree`


@dataclass
class Unpacked:
    """An image of two layers, and what umoci makes of it."""

    layout: Path
    layers: list[bytes]  # as the layout has them, not compressed
    files: dict[str, Entry]


def some_of_debian() -> bytes:
    """What matters of Debian to the layer above, and a few programs: a tenth of it."""
    out = io.BytesIO()
    wanted = re.compile(r"\.(/usr(/share|/bin)?)?|\./(etc|usr/share/doc|usr/bin/[bp]).*")
    with tarfile.open(debian_tar()) as whole, tarfile.open(fileobj=out, mode="w") as part:
        for member in whole:
            if wanted.fullmatch(member.name) and not member.islnk():
                part.addfile(member, whole.extractfile(member) if member.isreg() else None)
    return out.getvalue()


def write_layout(directory: Path, layers: list[bytes]) -> None:
    """The OCI layout of one image `x`, its layers not compressed."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digest = sha256(data)
        (blobs / digest[7:]).write_bytes(data)
        return {"mediaType": kind, "digest": digest, "size": len(data)}

    described = [blob(media_types.OCI_LAYER, one) for one in layers]
    rootfs = {"type": "layers", "diff_ids": [one["digest"] for one in described]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}).encode()
    image = {
        "schemaVersion": 2,
        "mediaType": media_types.OCI_MANIFEST,
        "config": blob(media_types.OCI_CONFIG, config),
        "layers": described,
    }
    manifest = blob(media_types.OCI_MANIFEST, json.dumps(image).encode())
    manifest["annotations"] = {"org.opencontainers.image.ref.name": "x"}
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [manifest]}))


@pytest.fixture(scope="module")
def unpacked_by_umoci(tmp_path_factory: pytest.TempPathFactory) -> Unpacked:
    """Some of a Debian, and a second layer with whiteouts and everything that a file can have."""
    above = layer(
        entry("etc/.wh.passwd"), entry("usr/share/doc/.wh..wh..opq"), entry("usr/share/doc/new", data=b"new"),
        entry("odd", "dir", mode=0o2750, uid=12, gid=34, pax_headers={"mtime": "1234567890.987654321"}),
        entry("odd/null", "char", devmajor=1, devminor=3, mode=0o666), entry("odd/fifo", "fifo"),
        entry("odd/hard", data=b"one", mode=0o4755),
        entry("odd/hard2", "link", linkname="odd/hard", mode=0o4755),
        entry("odd/link", "symlink", linkname="../../outside"),
        entry("odd/x", data=b"x", pax_headers={"SCHILY.xattr.user.colour": "blue", "mtime": "1.000000001"}),
    )  # fmt: skip

    work = tmp_path_factory.mktemp("umoci")
    layers = [some_of_debian(), above]
    write_layout(work / "layout", layers)
    command = ["umoci", "raw", "unpack", "--image", f"{work}/layout:x", f"{work}/rootfs"]
    subprocess.run(command, check=True, capture_output=True)
    return Unpacked(work / "layout", layers, tree(work / "rootfs"))


@needs.program("umoci")
@needs.program("skopeo")
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_every_file_is_as_umoci_unpacks_it(
    store: Store, registry: Registry, unpacked_by_umoci: Unpacked, compression: str
) -> None:
    """A layer of Debian's files, and above it whiteouts and everything that a file can have."""
    made = unpacked_by_umoci
    if compression == "gzip":
        copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{made.layout}:x"]
        subprocess.run([*copy, f"docker://{registry.host}/debian/gzip:x"], check=True)
    else:
        packed = [zstandard.compress(one) if compression == "zstd" else one for one in made.layers]
        kind = media_types.layer_type("zstd" if compression == "zstd" else "")
        put_image(registry, f"debian/{compression}", "x", [(kind, one) for one in packed])
    name = f"{registry.host}/debian/{compression}:x"
    store.pull(name)
    manifest, _ = registry.manifest(f"debian/{compression}", "x")
    start = (store.root / "content/blobs/sha256" / manifest["layers"][0]["digest"][7:]).read_bytes()[:4]
    assert sniff(start + b"  ") == ("" if compression == "none" else compression)
    with store.rootfs(name) as root:
        ours, theirs = tree(root), dict(made.files)
    for path in (".", "dev", "etc", "proc", "sys", "run"):  # the engine's own mount points
        ours.pop(path, None), theirs.pop(path, None)
    differing = {path for path in ours | theirs if ours.get(path) != theirs.get(path)}
    made_by_engine = {
        "dev/pts",
        "dev/shm",
        "etc/hostname",
        "etc/hosts",
        "etc/mtab",
        "etc/resolv.conf",
        ".dockerenv",
    }
    made_by_engine |= {"dev/console"}
    assert differing - made_by_engine == set(), {
        path: (ours.get(path), theirs.get(path)) for path in sorted(differing - made_by_engine)[:5]
    }
    assert "etc/passwd" not in ours and "etc/debian_version" in ours
    assert ours["odd/x"][4] == 1_000_000_001
