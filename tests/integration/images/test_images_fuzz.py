"""The store under load, import, commit, tag, save and removal at once, with kill -9 in between.

A child process works on the store with threads, chosen by a seed; it is killed at a random moment. The
next one opens what is left. Whatever happened, every record is whole, nothing lies about, and nothing that
was saved, named or used has gone.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from sampan.database import Database
from sampan.errors import SampanError
from sampan.images import Commit, Finding, ImageService
from sampan.oci.image import ImageConfig
from sampan.storage import open_driver
from support.layers import entry, layer

pytestmark = pytest.mark.root
LAYERS = [layer(entry(f"f{number}", data=bytes([number]) * 20_000)) for number in range(9)]
KEPT = "kept:1"


def archive(numbers: list[int], tag: str) -> bytes:
    """A docker-archive of an image with these layers."""
    layers = [LAYERS[number] for number in numbers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": {"numbers": str(numbers)}},
            "rootfs": {
                "type": "layers",
                "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers],
            },
        }
    ).encode()
    files = {"c.json": config, **{f"{index}.tar": data for index, data in enumerate(layers)}}
    names = [f"{index}.tar" for index in range(len(layers))]
    files["manifest.json"] = json.dumps([{"Config": "c.json", "RepoTags": [tag], "Layers": names}]).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            head = tarfile.TarInfo(name)
            head.size = len(data)
            tar.addfile(head, io.BytesIO(data))
    return out.getvalue()


class Null(io.RawIOBase):
    """Takes what is saved; checks that it is an archive of the length that it says."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        count = memoryview(data).nbytes  # type: ignore[arg-type]
        self.size += count
        return count


def work(images: ImageService, root: Path, seed: int, until: float, failures: list[str]) -> None:
    """Random calls; whatever others do at the same time, only honest refusals may come back."""
    choice = random.Random(seed)
    while time.monotonic() < until:
        tag = f"t{choice.randrange(6)}:1"
        try:
            match choice.randrange(8):
                case 0 | 1:
                    numbers = choice.sample(range(5), choice.randrange(1, 4))
                    images.load(io.BytesIO(archive(numbers, tag)))
                case 2:
                    images.import_(io.BytesIO(choice.choice(LAYERS)), tag)
                case 3:
                    images.tag(f"t{choice.randrange(6)}:1", tag)
                case 4 | 5:
                    images.remove(tag, choice.random() < 0.3, choice.random() < 0.3, lambda _: [])
                case 6:
                    images.save([tag], Null())  # type: ignore[arg-type]
                case 7:
                    commit(images, choice, tag)
        except SampanError as error:
            if error.status not in (404, 409):
                failures.append(f"{type(error).__name__}: {error.message}")
        except Exception as error:
            failures.append(f"{type(error).__name__}: {error}")


def commit(images: ImageService, choice: random.Random, tag: str) -> None:
    driver = images._records.driver
    image = images.resolve(tag)
    name = f"c{threading.get_ident()}"
    driver.create_container(name, image.top_layer)
    try:
        (Path(driver.mount(name)) / "changed").write_text(str(choice.random()))
        with driver.snapshot(name) as snapshot:
            images.commit(snapshot, image.id, Commit(ImageConfig()), images.check_name(tag))
    finally:
        driver.remove_container(name)


def child(root: Path, seed: int, seconds: float) -> int:
    """What the killed process does."""
    driver = open_driver("overlay2", root)
    images = ImageService(root, driver, Database(root / "db"))
    driver.repair(set())
    if not images.list():
        images.load(io.BytesIO(archive([5, 6, 7, 8], KEPT)))
    print("ready", flush=True)
    failures: list[str] = []
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=work, args=(images, root, seed * 100 + number, until, failures))
        for number in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("\n".join(sorted(set(failures))), flush=True)
    return 1 if failures else 0


def start(root: Path, seed: int, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, __file__, str(root), str(seed), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def examine(root: Path) -> None:
    """The store as the next process finds it, after it has set right what a crash left."""
    driver = open_driver("overlay2", root)
    database = Database(root / "db")
    images = ImageService(root, driver, database)
    driver.repair(set())
    images.collect_garbage()  # as the daemon does: a container that was dropped may have held a layer
    found: list[Finding] = []
    images.check(lambda _: [], set(), False, found.append)
    assert found == []
    assert os.listdir(root / "content/ingest") == []
    assert driver.mounted() == set()
    kept = images.resolve(KEPT)
    assert len(kept.diff_ids) == 4
    for image in images.list():
        out = Null()
        images.save([image.id], out)  # type: ignore[arg-type]
        assert out.size > 20_000
        if image.top_layer is not None:
            view = Path(driver.mount_layers_ro(image.top_layer))
            names = set(os.listdir(view))
            driver.unmount_layers_ro(image.top_layer)
            assert any(name.startswith("f") for name in names)
    database.close()


def test_everything_at_once(tmp_path: Path) -> None:
    process = start(tmp_path, seed=1, seconds=4)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    examine(tmp_path)


@pytest.mark.parametrize("seed", range(2))
def test_killed_again_and_again(tmp_path: Path, seed: int) -> None:
    choice = random.Random(seed)
    for turn in range(4):
        process = start(tmp_path, seed=seed * 10 + turn, seconds=30)
        time.sleep(choice.uniform(0.05, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        examine(tmp_path)


if __name__ == "__main__":
    sys.exit(child(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
