"""Pulling by a network that fails, and several pulls at once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sampan.images import Cancellation
from sampan.images import pull as module
from sampan.images.errors import PullCancelled
from sampan.oci.digest import sha256
from sampan.registry import RegistryError
from support import needs
from support.proxy import Proxy
from support.pulling import BIG, Store, big, in_thread, put_image, statuses, until
from support.registry import Registry

pytestmark = [pytest.mark.root, needs.program("docker-registry")]


def test_a_broken_connection_goes_on_where_it_was(store: Store, registry: Registry, proxy: Proxy) -> None:
    put_image(registry, "cut", "x", [big("big")])
    proxy.cuts = [500_000, 900_000, 700_000]
    told = statuses(store.pull(f"{proxy.host}/cut:x"))
    assert proxy.cut == 3
    assert proxy.passed < len(BIG) * 1.2  # every byte once, and the heads
    assert any("Retrying in 1 second" in text for text in told)
    with store.rootfs(f"{proxy.host}/cut:x") as root:
        assert (root / "big").read_bytes() == BIG


def test_the_next_pull_resumes_what_a_failed_one_left(
    tmp_path: Path, registry: Registry, proxy: Proxy
) -> None:
    store = Store(tmp_path / "store", max_download_attempts=1)
    put_image(registry, "again", "x", [big("small", b"1"), big("big")])
    name = f"{proxy.host}/again:x"
    proxy.cuts = [2_000_000]
    with pytest.raises(RegistryError):
        store.pull(name)
    assert not store.images.list()
    before = proxy.passed
    told = statuses(store.pull(name))
    assert proxy.passed - before < len(BIG) - 1_500_000
    assert told[-1].startswith("Status: Downloaded newer image")
    with store.rootfs(name) as root:
        assert (root / "big").read_bytes() == BIG
    assert not list((store.root / "content/ingest").iterdir())
    store.close()


def test_what_a_failed_pull_left_goes_after_a_while(
    tmp_path: Path, registry: Registry, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEEP_S", 0.5)
    store = Store(tmp_path / "store", max_download_attempts=1)
    put_image(registry, "goes", "x", [big("first", BIG[:1000]), big("big", BIG[::-1])])
    proxy.cuts = [2_000_000]
    with pytest.raises(RegistryError):
        store.pull(f"{proxy.host}/goes:x")
    assert not store.is_empty()
    limit = time.monotonic() + 10
    while not store.is_empty() and time.monotonic() < limit:
        time.sleep(0.05)
    assert store.is_empty()
    store.close()


def test_two_pulls_at_once_download_once(store: Store, registry: Registry, proxy: Proxy) -> None:
    """The same image twice, and another image with one of its layers."""
    shared = big("shared", BIG[1:])
    put_image(registry, "twice", "x", [shared, big("own")])
    put_image(registry, "twice", "y", [big("lower", b"1"), shared])
    proxy.hold_after = 1_000_000
    proxy.hold.clear()
    first = in_thread(lambda: store.pull(f"{proxy.host}/twice:x"))
    until(lambda: proxy.passed > 1_000_000)
    others = [in_thread(lambda tag=tag: store.pull(f"{proxy.host}/twice:{tag}")) for tag in ("x", "y")]
    time.sleep(0.5)
    proxy.hold.set()
    for thread, problems in (first, *others):
        thread.join(60)
        assert problems == []
    for _, blob in (shared, big("own")):
        asked = [
            line for line in registry.requests() if line.startswith(f"GET /v2/twice/blobs/{sha256(blob)} ")
        ]
        assert asked == [f"GET /v2/twice/blobs/{sha256(blob)} 200"]
    for tag in ("x", "y"):
        with store.rootfs(f"{proxy.host}/twice:{tag}") as root:
            assert (root / "shared").read_bytes() == BIG[1:]


def test_a_download_goes_on_while_one_of_two_still_waits(
    store: Store, registry: Registry, proxy: Proxy
) -> None:
    put_image(registry, "leave", "x", [big("one", BIG[2:])])
    proxy.hold_after = 1_000_000
    proxy.hold.clear()
    leaver = Cancellation()
    first = in_thread(lambda: store.pull(f"{proxy.host}/leave:x", cancellation=leaver))
    until(lambda: proxy.passed > 1_000_000)
    second = in_thread(lambda: store.pull(f"{proxy.host}/leave:x"))
    time.sleep(0.3)
    leaver.set()
    first[0].join(20)
    assert [type(error) for error in first[1]] == [PullCancelled]
    proxy.hold.set()
    second[0].join(60)
    assert second[1] == []
    assert proxy.passed < len(BIG) * 1.2
    assert store.images.resolve(f"{proxy.host}/leave:x")


def test_the_last_to_leave_cancels(store: Store, registry: Registry, proxy: Proxy) -> None:
    put_image(registry, "cancel", "x", [big("one", BIG[3:]), big("two", BIG[4:])])
    proxy.rate = 2_000_000
    leaver = Cancellation()
    thread, problems = in_thread(lambda: store.pull(f"{proxy.host}/cancel:x", cancellation=leaver))
    until(lambda: proxy.passed > 1_000_000)
    leaver.set()
    thread.join(20)
    assert [type(error) for error in problems] == [PullCancelled]
    time.sleep(0.5)
    stopped = proxy.passed
    time.sleep(0.5)
    assert proxy.passed - stopped < 500_000  # what was on its way
    assert store.images.list() == []
    proxy.rate = 0
    store.pull(f"{proxy.host}/cancel:x")
    with store.rootfs(f"{proxy.host}/cancel:x") as root:
        assert (root / "one").read_bytes() == BIG[3:]
        assert (root / "two").read_bytes() == BIG[4:]


def test_no_more_downloads_at_a_time_than_allowed(tmp_path: Path, registry: Registry, proxy: Proxy) -> None:
    store = Store(tmp_path / "store", max_concurrent_downloads=1)
    put_image(registry, "queue", "x", [big(f"f{number}", BIG[number:100_000]) for number in range(4)])
    told = statuses(store.pull(f"{proxy.host}/queue:x"))
    assert sum(text.endswith(": Waiting") for text in told) >= 2
    verified = [text for text in told if text.endswith(("Verifying Checksum", "Download complete"))]
    assert [text.partition(": ")[2] for text in verified] == ["Verifying Checksum", "Download complete"] * 4
    store.close()
