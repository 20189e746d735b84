"""`import load save tag rmi images`, archives in every shape, and other people's tools as judges."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import needs
from support.cli import Cli
from support.engine import Engine
from support.images import busybox_tar

Names = Callable[[], str]


@pytest.fixture
def reference(engine: Engine, name: Names) -> Iterator[str]:
    """A name for an image, removed at the end."""
    given = f"img-{name()}"
    yield f"{given}:v1"
    for image in engine.api.get("/images/json"):
        for tag in image["RepoTags"] or []:
            if tag.startswith(given):
                engine.api("DELETE", f"/images/{tag}?force=1")


def old(engine: Engine) -> bool:
    """Whether --engine-host names a real engine of before 2024."""
    return str(engine.api.get("/version")["Version"]).startswith(("20.", "23.", "24."))


def small_tar() -> bytes:
    """A tar with a bit of everything that tar can hold."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **more: object) -> None:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.mode, entry.mtime = kind, len(data), 0o644, 1_700_000_000
            for key, value in more.items():
                setattr(entry, key, value)
            archive.addfile(entry, io.BytesIO(data))

        add("dir", tarfile.DIRTYPE, mode=0o1777)
        add("dir/file", data=b"content\n", uid=1000, gid=50)
        add("dir/setuid", data=b"x", mode=0o4755)
        add("dir/hard", tarfile.LNKTYPE, linkname="dir/file", uid=1000, gid=50)
        add("dir/link", tarfile.SYMTYPE, linkname="../../../etc/shadow")
        add("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
        add("fifo", tarfile.FIFOTYPE)
        add("time", pax_headers={"mtime": "1700000000.123456789"})
        add("capable", data=b"x", mode=0o755, pax_headers={"SCHILY.xattr.user.colour": "blue"})
    return out.getvalue()


def test_import_from_stdin_with_changes(cli: Cli, engine: Engine, reference: str) -> None:
    done = cli(
        *("import", "-c", 'CMD ["/hello"]', "-c", "ENV A=b", "-m", "a note", "-", reference),
        stdin=busybox_tar(),
    )
    assert done.out.startswith("sha256:")
    config = engine.api.get(f"/images/{reference}/json")["Config"]
    assert config["Cmd"] == ["/hello"]
    assert "A=b" in config["Env"]


def test_import_from_a_file_keeps_the_layers_digest(
    cli: Cli, engine: Engine, reference: str, tmp_path: Path
) -> None:
    content = small_tar()
    (tmp_path / "root.tar").write_bytes(content)
    cli("import", str(tmp_path / "root.tar"), reference)
    layers = engine.api.get(f"/images/{reference}/json")["RootFS"]["Layers"]
    assert layers == ["sha256:" + hashlib.sha256(content).hexdigest()]


def test_everything_in_a_tar_arrives(
    cli: Cli, engine: Engine, busybox: str, reference: str, name: Names
) -> None:
    out = io.BytesIO(busybox_tar())
    with (
        tarfile.open(fileobj=out, mode="a") as archive,
        tarfile.open(fileobj=io.BytesIO(small_tar())) as small,
    ):
        for entry in small:
            archive.addfile(entry, small.extractfile(entry) if entry.isreg() else None)
    cli("import", "-", reference, stdin=out.getvalue())
    script = "stat -c '%n %a %u %g %h %F' dir dir/file dir/setuid null fifo; readlink dir/link; cat dir/hard"
    done = cli("run", "--rm", "-w", "/", reference, "sh", "-c", script)
    assert done.lines == [
        "dir 1777 0 0 2 directory",
        "dir/file 644 1000 50 2 regular file",
        "dir/setuid 4755 0 0 1 regular file",
        "null 666 0 0 1 character special file",
        "fifo 644 0 0 1 fifo",
        "../../../etc/shadow",
        "content",
    ]


def test_what_is_no_archive_is_refused(cli: Cli, engine: Engine) -> None:
    before = engine.api.get("/images/json?all=1")
    cli("load", stdin=b"this is no tar at all" * 100, code=1)
    assert engine.api.get("/images/json?all=1") == before


def test_save_and_load_bring_the_same_image(cli: Cli, engine: Engine, busybox: str, reference: str) -> None:
    cli("tag", busybox, reference)
    image_id = engine.api.get(f"/images/{reference}/json")["Id"]
    saved = cli("save", reference).raw
    cli("rmi", reference)
    assert engine.api("GET", f"/images/{reference}/json").status == 404
    assert cli("load", stdin=saved).out == f"Loaded image: {reference}\n"
    assert engine.api.get(f"/images/{reference}/json")["Id"] == image_id
    assert cli("run", "--rm", reference, "echo", "alive").out == "alive\n"


def test_save_several_images(cli: Cli, engine: Engine, busybox: str, reference: str) -> None:
    other = reference.replace(":v1", ":v2")
    cli("tag", busybox, reference)
    cli("tag", busybox, other)
    with tarfile.open(fileobj=io.BytesIO(cli("save", reference, other).raw)) as archive:
        member = archive.extractfile("manifest.json")
        assert member is not None
        tags = {tag for image in json.load(member) for tag in image["RepoTags"]}
    assert tags == {reference, other}


@needs.program("skopeo")
def test_skopeo_reads_what_we_save(cli: Cli, engine: Engine, busybox: str, tmp_path: Path) -> None:
    file = tmp_path / "saved.tar"
    cli("save", "-o", str(file), busybox)
    shown = json.loads(subprocess.check_output(["skopeo", "inspect", "--config", f"docker-archive:{file}"]))
    ours = engine.api.get(f"/images/{busybox}/json")
    assert shown["rootfs"]["diff_ids"] == ours["RootFS"]["Layers"]
    raw = subprocess.check_output(["skopeo", "inspect", "--raw", "--config", f"docker-archive:{file}"])
    assert "sha256:" + hashlib.sha256(raw).hexdigest() == ours["Id"]


@needs.program("skopeo")
def test_oci_layout_from_skopeo(
    cli: Cli, engine: Engine, busybox: str, reference: str, tmp_path: Path
) -> None:
    if old(engine):
        pytest.skip("this old engine loads no OCI layout")
    file, layout = tmp_path / "saved.tar", tmp_path / "layout.tar"
    cli("save", "-o", str(file), busybox)
    copy = ["skopeo", "--insecure-policy", "copy", "-q"]
    subprocess.run([*copy, f"docker-archive:{file}", f"oci-archive:{layout}:{reference}"], check=True)
    cli("load", "-i", str(layout))
    shown = engine.api.get(f"/images/{reference}/json")
    assert shown["RootFS"]["Layers"] == engine.api.get(f"/images/{busybox}/json")["RootFS"]["Layers"]
    assert cli("run", "--rm", reference, "echo", "alive").out == "alive\n"


def test_layers_with_whiteouts_stack(cli: Cli, reference: str) -> None:
    """A second layer that deletes a file and hides what a directory held (image-spec, layer.md)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in ("etc/.wh.plain", "home/.wh..wh..opq", "home/new", "etc/added"):
            archive.addfile(tarfile.TarInfo(path), io.BytesIO())
    layers = [busybox_tar(), out.getvalue()]
    diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    config_bytes = json.dumps(config).encode()
    files = {"config.json": config_bytes, "1.tar": layers[0], "2.tar": layers[1]}
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["1.tar", "2.tar"]}]
    files["manifest.json"] = json.dumps(manifest).encode()
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    cli("load", stdin=whole.getvalue())
    assert cli("images", "-q", "--no-trunc", reference).out.strip() == (
        "sha256:" + hashlib.sha256(config_bytes).hexdigest()
    )
    done = cli("run", "--rm", reference, "sh", "-c", "ls /home; ls /etc")
    listed = done.lines
    assert listed[0] == "new"
    assert "plain" not in listed and "added" in listed and "alice" not in listed


def test_images_and_tags(cli: Cli, engine: Engine, busybox: str, reference: str) -> None:
    cli("tag", busybox, reference)
    repository, tag = reference.split(":")
    header, *rows = cli("images", repository).lines
    assert header.split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert rows[0].split()[:2] == [repository, tag]
    short = engine.api.get(f"/images/{busybox}/json")["Id"].removeprefix("sha256:")[:12]
    assert cli("images", "-q", reference).out.strip() == short
    assert cli("images", "--format", "{{.Repository}}:{{.Tag}}", reference).out.strip() == reference
    (shown,) = json.loads(cli("image", "inspect", reference).out)
    assert reference in shown["RepoTags"] and shown["Os"] == "linux" and shown["Size"] > 500_000
    assert f"Untagged: {reference}" in cli("rmi", reference).out
    assert "No such image" in cli("rmi", reference, code=1).err


def test_an_image_in_use_stays(cli: Cli, reference: str, name: Names) -> None:
    one = name()
    cli("import", "-", reference, stdin=busybox_tar() + bytes(1024))
    cli("run", "-d", "--name", one, reference, "sleep", "30")
    assert "conflict" in cli("rmi", reference, code=1).err.lower()
    assert cli("exec", one, "echo", "alive").out == "alive\n"


def test_bad_references_are_refused(cli: Cli, busybox: str) -> None:
    assert cli("tag", busybox, "busy/UPPER", code=None).code != 0
    assert "No such image" in cli("tag", "no-such-image", "x:y", code=1).err


def test_history(cli: Cli, busybox: str) -> None:
    assert len(cli("history", "-q", busybox).lines) == 1
