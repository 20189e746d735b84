"""Pulled layers that are unpacked by another process."""

from __future__ import annotations

import gzip
import os

import pytest

from sampan.images import Cancellation, apart
from sampan.images.errors import PullCancelled
from sampan.oci import media_types
from sampan.oci.digest import DigestMismatch, sha256
from sampan.storage import InvalidLayer
from sampan.storage.unpack_process import UnpackProcess
from support import needs
from support.layers import entry, layer
from support.proxy import Proxy
from support.pulling import BIG, Store, big, in_thread, put_image, statuses, until
from support.registry import Registry

pytestmark = [pytest.mark.root, needs.program("docker-registry")]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[UnpackProcess]:
    """The unpacking processes that pulls start, which they do for small layers here."""
    made: list[UnpackProcess] = []

    class Noted(UnpackProcess):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(apart, "APART_BYTES", 100_000)
    monkeypatch.setattr(apart, "UnpackProcess", Noted)
    return made


def ended(processes: list[UnpackProcess]) -> bool:
    return all(process._process.poll() is not None for process in processes)


def test_large_layers_are_unpacked_by_one_process(
    store: Store, registry: Registry, processes: list[UnpackProcess]
) -> None:
    plain = layer(
        entry("d", "dir", mode=0o711), entry("d/one", data=BIG), entry("d/l", "link", linkname="d/one")
    )
    packed = gzip.compress(layer(entry("d", "dir", mode=0o700), entry("d/.wh.l"), entry("two", data=BIG)), 1)
    layers = [
        (media_types.OCI_LAYER, plain), (media_types.OCI_LAYER_GZIP, packed), big("small", b"3"),
    ]  # fmt: skip
    put_image(registry, "apart", "x", layers)
    told = statuses(store.pull(f"{registry.host}/apart:x"))
    assert len(processes) == 1
    assert ended(processes)
    assert sum(text.endswith(": Pull complete") for text in told) == 3
    with store.rootfs(f"{registry.host}/apart:x") as root:
        assert (root / "d/one").read_bytes() == (root / "two").read_bytes() == BIG
        assert sorted(os.listdir(root / "d")) == ["one"]
        assert (root / "d").stat().st_mode & 0o777 == 0o700
        assert (root / "small").exists()


def test_a_layer_that_looks_at_those_below_is_unpacked_here(
    store: Store, registry: Registry, processes: list[UnpackProcess]
) -> None:
    below = layer(entry("d", "dir", mode=0o1777, uid=7), entry("d/x", data=BIG))
    put_image(
        registry, "needs", "x",
        [(media_types.OCI_LAYER, below), big("d/y", BIG[1:]), big("z", BIG[2:])],
    )  # fmt: skip
    store.pull(f"{registry.host}/needs:x")
    assert len(processes) == 2  # the second layer cost one
    assert ended(processes)
    with store.rootfs(f"{registry.host}/needs:x") as root:
        assert (root / "d").stat().st_mode & 0o7777 == 0o1777
        assert (root / "d").stat().st_uid == 7
        assert (root / "d/y").read_bytes() == BIG[1:]


def test_a_process_that_is_killed_costs_only_time(
    store: Store, registry: Registry, proxy: Proxy, processes: list[UnpackProcess]
) -> None:
    put_image(registry, "killed", "x", [big("one", BIG[5:])])
    proxy.hold_after = 1_000_000
    proxy.hold.clear()
    thread, problems = in_thread(lambda: store.pull(f"{proxy.host}/killed:x"))
    until(lambda: proxy.passed > 1_000_000 and len(processes) == 1)
    processes[0].kill()
    proxy.hold.set()
    thread.join(60)
    assert problems == []
    with store.rootfs(f"{proxy.host}/killed:x") as root:
        assert (root / "one").read_bytes() == BIG[5:]


def test_what_is_wrong_and_what_is_cancelled_leaves_no_process(
    store: Store, registry: Registry, proxy: Proxy, processes: list[UnpackProcess]
) -> None:
    put_image(registry, "wrong", "x", [big("one", BIG[6:])], diff_ids=[sha256(b"another")])
    with pytest.raises(DigestMismatch):
        store.pull(f"{registry.host}/wrong:x")
    noise = (media_types.OCI_LAYER, b"noise" * 50_000)
    put_image(registry, "wrong", "y", [noise])
    with pytest.raises(InvalidLayer):
        store.pull(f"{registry.host}/wrong:y")
    put_image(registry, "wrong", "z", [big("one", BIG[7:])])
    proxy.hold_after = 1_000_000
    proxy.hold.clear()
    leaver = Cancellation()
    thread, problems = in_thread(lambda: store.pull(f"{proxy.host}/wrong:z", cancellation=leaver))
    until(lambda: proxy.passed > 1_000_000)
    leaver.set()
    proxy.hold.set()
    thread.join(60)
    assert [type(error) for error in problems] == [PullCancelled]
    assert len(processes) == 3
    assert ended(processes)
    assert list((store.root / "overlay2/stage").iterdir()) == []
