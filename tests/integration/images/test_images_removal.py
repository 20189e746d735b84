"""Names, prefixes, and what may be removed when."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.database import Database
from sampan.errors import Conflict, InvalidParameter
from sampan.images import AmbiguousImage, ImageInUse, ImageService, NoSuchImage
from sampan.storage import Driver, open_driver
from support.layers import entry, layer

pytestmark = pytest.mark.root
CONTAINER = "c0ffee" * 10


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    return open_driver("overlay2", tmp_path)


@pytest.fixture
def images(tmp_path: Path, driver: Driver) -> Iterator[ImageService]:
    database = Database(tmp_path / "db")
    yield ImageService(tmp_path, driver, database)
    database.close()


def add(images: ImageService, name: str | None, text: str = "x") -> str:
    return images.import_(io.BytesIO(layer(entry("f", data=text.encode()))), name)


def nobody(_image: str) -> list[tuple[str, bool]]:
    return []


def stopped(_image: str) -> list[tuple[str, bool]]:
    return [(CONTAINER, False)]


def running(_image: str) -> list[tuple[str, bool]]:
    return [(CONTAINER, True)]


def test_the_last_name_takes_the_image_along(images: ImageService, driver: Driver, tmp_path: Path) -> None:
    image = add(images, "a")
    images.tag("a", "quay.io/b/c:2")
    top = images.resolve("a").top_layer
    assert images.remove("a", False, False, stopped) == [("Untagged", "a:latest")]
    assert images.remove("quay.io/b/c:2", False, False, nobody) == [
        ("Untagged", "quay.io/b/c:2"), ("Deleted", image), ("Deleted", top),
    ]  # fmt: skip
    assert driver.layers() == set()
    assert list((tmp_path / "content/blobs/sha256").iterdir()) == []
    with pytest.raises(NoSuchImage, match="No such image: a:latest"):
        images.remove("a", False, False, nobody)


def test_conflicts_are_told_as_docker_tells_them(images: ImageService) -> None:
    image = add(images, "a")
    short = image[7:19]
    for users, force, name, message in (
        (stopped, False, "a", f'conflict: unable to remove repository reference "a" (must force) - container '
                              f"c0ffeec0ffee is using its referenced image {short}"),
        (running, False, "a", f'conflict: unable to remove repository reference "a" (must force) - container '
                              f"c0ffeec0ffee is using its referenced image {short}"),
        (running, True, short, f"conflict: unable to delete {short} (cannot be forced) - image is being used "
                               "by running container c0ffeec0ffee"),
        (stopped, False, short, f"conflict: unable to delete {short} (must be forced) - image is being used "
                                "by stopped container c0ffeec0ffee"),
    ):  # fmt: skip
        with pytest.raises(ImageInUse) as caught:
            images.remove(name, force, False, users)
        assert caught.value.message == message
        assert caught.value.status == 409
    images.tag("a", "b")
    with pytest.raises(ImageInUse, match=r"must be forced.* - image is referenced in multiple repositories"):
        images.remove(image, False, False, nobody)
    assert images.resolve(image).repo_tags == ["a:latest", "b:latest"]


def test_force_unnames_even_under_a_running_container(images: ImageService) -> None:
    image = add(images, "a")
    assert images.remove("a", True, False, running) == [("Untagged", "a:latest")]
    assert images.resolve(image).repo_tags == []


def test_force_by_id_removes_all_names(images: ImageService) -> None:
    image = add(images, "a")
    images.tag("a", "b:1")
    lines = images.remove(image[7:19], True, False, nobody)
    assert lines[:3] == [("Untagged", "a:latest"), ("Untagged", "b:1"), ("Deleted", image)]


def test_layers_stay_while_a_container_stands_on_them(images: ImageService, driver: Driver) -> None:
    image = add(images, "a")
    top = images.resolve("a").top_layer
    assert top is not None
    driver.create_container("c", top)
    lines = images.remove("a", True, False, stopped)
    assert lines == [("Untagged", "a:latest"), ("Deleted", image)]
    assert driver.has_layer(top)
    driver.remove_container("c")
    assert images.collect_garbage() == [top]


def test_a_layer_that_two_images_share_stays_with_the_other(images: ImageService, driver: Driver) -> None:
    add(images, "a")
    images.import_(io.BytesIO(layer(entry("f", data=b"x"))), "b", ["ENV A=1"])
    assert len(images.remove("a", False, False, nobody)) == 2
    assert driver.has_layer(images.resolve("b").top_layer or "")


def test_names_and_prefixes(images: ImageService) -> None:
    ids = [add(images, f"i{number}", str(number)) for number in range(20)]
    for image in ids:
        for text in (image, image[7:], image[7:19], image[:20]):
            assert images.resolve(text).id == image
    digit = next(d for d in "0123456789abcdef" if sum(image[7] == d for image in ids) > 1)
    with pytest.raises(AmbiguousImage, match=r"is ambiguous: . images begin with it"):
        images.resolve(digit)
    for text, message in (
        ("nope", "No such image: nope:latest"),
        ("sha256:" + "0" * 64, "No such image: sha256:0000"),
        ("0" * 64, "No such image: 0000"),
    ):
        with pytest.raises(NoSuchImage, match=message):
            images.resolve(text)
    for text in ("UP", "a b", ""):
        with pytest.raises(InvalidParameter):
            images.resolve(text)
    with pytest.raises(InvalidParameter, match="refusing to create a tag with a digest reference"):
        images.tag("i1", "x@sha256:" + "0" * 64)
    add(images, digit * 3, "a name of hex digits wins")
    assert images.resolve(digit * 3).repo_tags == [f"{digit * 3}:latest"]


def test_loads_and_removals_at_once(images: ImageService, driver: Driver) -> None:
    add(images, "a")
    out = io.BytesIO()
    images.save(["a"], out)
    failures: list[BaseException] = []

    def load() -> None:
        try:
            for _ in range(15):
                images.load(io.BytesIO(out.getvalue()))
        except BaseException as error:
            failures.append(error)

    def remove() -> None:
        try:
            for _ in range(30):
                try:
                    images.remove("a", True, False, nobody)
                except (NoSuchImage, Conflict):
                    pass
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for work in (load, load, remove, remove)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    images.load(io.BytesIO(out.getvalue()))
    image = images.resolve("a")
    assert driver.has_layer(image.top_layer or "")
    again = io.BytesIO()
    images.save(["a"], again)
    assert again.getvalue() == out.getvalue()
