"""Archives to and from podman, skopeo, umoci and engines of old, with both command lines."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import needs
from support.cli import Cli
from support.engine import Engine

Names = Callable[[], str]


@pytest.fixture
def image(engine: Engine, cli: Cli, busybox: str, name: Names) -> Iterator[str]:
    """An image of two layers, `exchange-…:1`, and all that is loaded under names with that in them."""
    given = f"exchange-{name()}"
    container = name()
    cli("run", "--name", container, busybox, "sh", "-c", "echo hi > /new; rm /etc/plain; ln /new /hard")
    cli("commit", container, f"{given}:1")
    yield f"{given}:1"
    for one in engine.api.get("/images/json?all=1"):
        for tag in one["RepoTags"] or []:
            if given in tag:
                engine.api("DELETE", f"/images/{tag}?force=1")


def run(*command: str | Path) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def id_of(engine: Engine, name: str) -> str:
    shown: str = engine.api.get(f"/images/{name}/json")["Id"]
    return shown


def alive(cli: Cli, name: str) -> None:
    done = cli("run", "--rm", name, "sh", "-c", "cat /new /hard; ls /etc/plain 2>&1 | wc -l")
    assert done.lines == ["hi", "hi", "1"]


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Podman with a store of its own."""
    with tempfile.TemporaryDirectory() as short:  # it wants a short path here
        command = ["podman", "--root", tmp_path / "root", "--runroot", short, "--storage-driver", "vfs"]
        yield lambda *words: run(*command, *words)


@needs.program("podman")
def test_podman(cli: Cli, engine: Engine, image: str, podman: Callable[..., str], tmp_path: Path) -> None:
    ours = tmp_path / "ours.tar"
    cli("save", "-o", str(ours), image)
    theirs = podman("load", "-i", ours).split()[-1]  # as podman spells it: localhost/…, docker.io/library/…
    assert theirs.endswith(image)
    image_id = id_of(engine, image)
    assert "sha256:" + podman("inspect", "-f", "{{.Id}}", theirs).strip() == image_id
    cli("rmi", image)
    shown = theirs.removeprefix("docker.io/library/")
    for form in ("docker-archive", "oci-archive"):
        file = tmp_path / form
        podman("save", "-q", "--format", form, "-o", file, theirs)
        assert f"Loaded image: {shown}" in cli("load", "-i", str(file)).lines
        assert len(engine.api.get(f"/images/{shown}/json")["RootFS"]["Layers"]) == 2
        alive(cli, shown)
        cli("rmi", shown)
    podman("tag", theirs, f"{theirs}again")
    podman("save", "-q", "-m", "-o", tmp_path / "multi", theirs, f"{theirs}again")
    loaded = cli("load", stdin=(tmp_path / "multi").read_bytes()).lines
    assert sorted(loaded) == [f"Loaded image: {shown}", f"Loaded image: {shown}again"]


@needs.program("umoci")
@needs.program("skopeo")
def test_a_layout_that_umoci_changed(cli: Cli, engine: Engine, image: str, tmp_path: Path) -> None:
    ours, layout = tmp_path / "ours.tar", tmp_path / "layout"
    cli("save", "-o", str(ours), image)
    run("skopeo", "--insecure-policy", "copy", "-q", f"oci-archive:{ours}:1", f"oci:{layout}:one")
    run("umoci", "unpack", "--image", f"{layout}:one", tmp_path / "bundle")
    (tmp_path / "bundle/rootfs/by-umoci").write_text("umoci\n")
    run("umoci", "repack", "--image", f"{layout}:changed", tmp_path / "bundle")
    run("umoci", "rm", "--image", f"{layout}:one")
    index = (layout / "index.json").read_text()
    (layout / "index.json").write_text(index.replace('"changed"', f'"{image}changed"'))
    run("tar", "-C", layout, "-cf", tmp_path / "changed.tar", ".")
    assert f"Loaded image: {image}changed" in cli("load", "-i", str(tmp_path / "changed.tar")).lines
    assert cli("run", "--rm", f"{image}changed", "cat", "/by-umoci").out == "umoci\n"
    alive(cli, f"{image}changed")


@needs.program("skopeo")
@pytest.mark.dealt
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_skopeo_with_compressed_layers(
    cli: Cli, engine: Engine, image: str, tmp_path: Path, compression: str
) -> None:
    ours, theirs = tmp_path / "ours.tar", tmp_path / "theirs.tar"
    cli("save", "-o", str(ours), image)
    copy = ["skopeo", "--insecure-policy", "copy", "-q"]
    pack = ["--dest-compress", "--dest-compress-format", compression]
    run(*copy, *pack, f"oci-archive:{ours}:1", f"dir:{tmp_path}/dir")
    run(*copy, f"dir:{tmp_path}/dir", f"oci-archive:{theirs}:{image}x")
    assert cli("load", "-i", str(theirs)).lines == [f"Loaded image: {image}x"]
    assert id_of(engine, f"{image}x") == id_of(engine, image)
    again = tmp_path / "again.tar"
    cli("save", "-o", str(again), f"{image}x")
    shown = json.loads(run("skopeo", "inspect", f"oci-archive:{again}:1x"))
    assert len(shown["Layers"]) == 2


@pytest.mark.dealt
@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz", "zstd"])
def test_compressed_archives_from_a_file_and_stdin(
    cli: Cli, engine: Engine, image: str, packer: str, tmp_path: Path
) -> None:
    saved = cli("save", image).raw
    packed = subprocess.run([packer, "-1", "-c"], input=saved, capture_output=True, check=True).stdout
    (tmp_path / "packed").write_bytes(packed)
    cli("rmi", image)
    assert cli("load", "-i", str(tmp_path / "packed")).lines == [f"Loaded image: {image}"]
    assert cli("load", "-q", stdin=packed).lines == [f"Loaded image: {image}"]
    alive(cli, image)


def old_archive(layers: list[bytes], tags: list[str], repeat_by_link: bool) -> tuple[bytes, str]:
    """What engines from 1.10 to 24 wrote: a directory for each layer, with VERSION, json and layer.tar."""
    diff_ids = ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    ).encode()
    image_id = hashlib.sha256(config).hexdigest()
    out = io.BytesIO()
    first: dict[bytes, str] = {}
    names = []
    with tarfile.open(fileobj=out, mode="w") as archive:

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

        for number, data in enumerate(layers):
            directory = f"{number:064x}"
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
            add(f"{directory}/VERSION", b"1.0")
            add(f"{directory}/json", json.dumps({"id": directory}).encode())
            if data in first and repeat_by_link:
                link = tarfile.TarInfo(f"{directory}/layer.tar")
                link.type, link.linkname = tarfile.SYMTYPE, f"../{first[data]}/layer.tar"
                archive.addfile(link)
            else:
                add(f"{directory}/layer.tar", data)
                first.setdefault(data, directory)
            names.append(f"{directory}/layer.tar")
        add(f"{image_id}.json", config)
        add(
            "manifest.json",
            json.dumps([{"Config": f"{image_id}.json", "RepoTags": tags, "Layers": names}]).encode(),
        )
        add("repositories", json.dumps({tags[0].split(":")[0]: {"1": directory}}).encode())
    return out.getvalue(), f"sha256:{image_id}"


@pytest.mark.dealt
@pytest.mark.parametrize("repeat_by_link", [False, True])
def test_archives_of_old_engines(
    cli: Cli, engine: Engine, image: str, busybox: str, repeat_by_link: bool
) -> None:
    saved = cli("save", busybox).raw
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        blob = archive.extractfile(json.load(manifest)[0]["Layers"][0])
        assert blob is not None
        base = blob.read()
    upper = io.BytesIO()
    with tarfile.open(fileobj=upper, mode="w") as archive:
        entry = tarfile.TarInfo("new")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"hi\n"))
    repository = image.split(":")[0]
    tags = [f"{repository}:old", f"{repository}:older"]
    data, image_id = old_archive([base, upper.getvalue(), upper.getvalue()], tags, repeat_by_link)
    assert cli("load", stdin=data).lines == [f"Loaded image: {tag}" for tag in tags]
    assert id_of(engine, tags[0]) == image_id
    assert cli("run", "--rm", tags[1], "cat", "/new").out == "hi\n"


def test_several_images_in_one_archive(cli: Cli, engine: Engine, image: str, busybox: str) -> None:
    repository = image.split(":")[0]
    cli("tag", image, f"{repository}:2")
    cli("tag", busybox, f"{repository}:base")
    ids = {tag: id_of(engine, f"{repository}:{tag}") for tag in ("1", "2", "base")}
    saved = cli("save", repository).raw
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        names = archive.getnames()
        assert len(names) == len(set(names))
        assert sum(member.size for member in archive if member.isreg()) < 4_500_000  # the shared layer once
    cli("rmi", *(f"{repository}:{tag}" for tag in ids))
    assert sorted(cli("load", stdin=saved).lines) == [
        f"Loaded image: {repository}:{tag}" for tag in sorted(ids)
    ]
    assert {tag: id_of(engine, f"{repository}:{tag}") for tag in ids} == ids
    by_id = cli("save", ids["1"]).raw
    cli("rmi", f"{repository}:1", f"{repository}:2")
    assert cli("load", stdin=by_id).lines == [f"Loaded image ID: {ids['1']}"]
    cli("rmi", ids["1"])


@pytest.mark.release28
def test_the_wrong_platform_is_refused(cli: Cli, engine: Engine, image: str, busybox: str) -> None:
    here = engine.api.get(f"/images/{image}/json")["Architecture"]
    saved = cli("save", "--platform", f"linux/{here}", image).raw
    text = "does not match the specified platform (linux/s390x)"
    if cli.name == "docker" and '"1.4' in json.dumps(engine.api.get("/version")["ApiVersion"]):
        pytest.skip("this engine is older than platforms")
    for words, stdin in (
        (("save", "--platform", "linux/s390x", image), None),
        (("load", "--platform", "linux/s390x"), saved),
        (("image", "inspect", "--platform", "linux/s390x", image), None),
        (("history", "--platform", "linux/s390x", image), None),
        (("rmi", "--platform", "linux/s390x", image), None),
    ):
        assert text in cli(*words, stdin=stdin, code=1).err, words
    assert cli("load", "--platform", f"linux/{here}", stdin=saved).lines == [f"Loaded image: {image}"]
    assert cli("image", "inspect", "--platform", f"linux/{here}", "-f", "{{.Os}}", image).out == "linux\n"
