"""`sampan system check` against a running daemon whose data root somebody breaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cli import Result
from support.engine import Daemon
from support.images import import_busybox


@pytest.fixture
def own(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon whose store may be broken."""
    daemon = make_daemon().start()
    daemon.api("DELETE", "/images/hello-world?force=1")
    import_busybox(daemon.api)
    yield daemon
    daemon.end()


def check(own: Daemon, *flags: str, code: int = 0) -> Result:
    return own.sampan("system", "check", *flags, code=code)


def layer_blob(own: Daemon, image: str = "busybox") -> Path:
    diff_id = own.api.get(f"/images/{image}/json")["RootFS"]["Layers"][-1]
    return own.data_root / "content/blobs/sha256" / diff_id[7:]


def test_nothing_is_wrong(own: Daemon) -> None:
    own.docker("run", "-d", "--name", "c1", "busybox", "sleep", "1000")
    assert check(own).out == "Checked 3 blobs, 1 layer, 1 image, 1 container: nothing is wrong\n"
    shown = json.loads(check(own, "--json").out)
    assert shown["Checked"] == {"Blobs": 3, "Layers": 1, "Images": 1, "Containers": 1}
    assert (shown["Found"], shown["Left"], shown["Findings"]) == (0, 0, [])


def test_a_bad_blob(own: Daemon) -> None:
    blob = layer_blob(own)
    with blob.open("r+b") as file:
        file.truncate(5000)
    for cli in (own.docker, own.sampan):
        refused = cli("save", "busybox", code=1)
        assert "run 'sampan system check'" in refused.err
        assert refused.raw == b""
    told = check(own, code=1).lines
    assert len(told) == 2
    assert told[0].startswith(f"image busybox:latest: its layer blob sha256:{blob.name}: its bytes have")
    assert told[0].endswith("it can only be removed; then load or pull it again")
    assert told[1] == "Checked 3 blobs, 1 layer, 1 image, 0 containers: 1 found, 0 set right, 1 left"
    own.docker("create", "--name", "user", "busybox")
    kept = check(own, "--repair", code=1).lines
    assert "uses it: remove that, then check again" in kept[0]
    assert own.api("GET", "/images/busybox/json").status == 200
    own.docker("rm", "user")
    mended = json.loads(check(own, "--repair", "--json").out)
    assert mended["Findings"][0]["Repaired"] is True
    assert own.api("GET", "/images/busybox/json").status == 404
    assert check(own).out.endswith(": nothing is wrong\n")
    import_busybox(own.api)
    assert own.docker("run", "--rm", "busybox", "echo", "back").out == "back\n"


def test_a_lost_layer_under_a_stopped_container(own: Daemon) -> None:
    own.docker("run", "--name", "c1", "busybox", "sh", "-c", "echo mine > /mine")
    for layer in (own.data_root / "overlay2/layers").iterdir():
        (layer / "layer.json").unlink()
        (layer / "diff").rename(layer / "lost")
    told = check(own, "--repair").lines
    assert told[0].endswith("unpacked again")
    assert own.docker("commit", "c1", "mine").code == 0
    assert own.docker("run", "--rm", "mine", "cat", "/mine").out == "mine\n"
    assert check(own).out.endswith(": nothing is wrong\n")


def test_after_a_crash_everything_is_whole(own: Daemon) -> None:
    own.docker("run", "--name", "c1", "busybox", "touch", "/x")
    own.kill9()
    (own.data_root / "content/ingest/half").write_bytes(b"x" * 100)
    (own.data_root / "overlay2/stage/half").mkdir()
    (own.data_root / "content/blobs/sha256" / ("a" * 64)).write_bytes(b"of an image that was never recorded")
    own.start()
    assert check(own).out == "Checked 3 blobs, 1 layer, 1 image, 1 container: nothing is wrong\n"
