"""Contexts and images that try to reach files of the host through COPY, ADD and WORKDIR."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sampan.building.context import Context
from sampan.building.copying import Treatment, digest, find, make_directory, place
from sampan.building.ending import Ending
from sampan.building.errors import BuildCancelled
from sampan.building.job import Job
from sampan.building.mounting import StepMounts
from sampan.building.options import BuildOptions
from sampan.building.output import Output
from sampan.building.state import State
from sampan.dockerfile import BuildArguments, Settings, Words, read
from sampan.dockerfile.mounts import mounts
from sampan.engine.build_caches import BuildCaches
from sampan.engine.model import Mount
from sampan.errors import InvalidParameter
from sampan.linux import beneath
from sampan.oci.image import ImageConfig

pytestmark = pytest.mark.root
SECRET = "the host's secret"
SECONDS = 2.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Path]:
    """What a build must neither read nor write."""
    directory = tmp_path / "host"
    directory.mkdir()
    (directory / "secret").write_text(SECRET)
    yield directory
    assert os.listdir(directory) == ["secret"]
    assert (directory / "secret").read_text() == SECRET


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A context's directory."""
    (tmp_path / "build/context").mkdir(parents=True)
    return tmp_path / "build/context"


@pytest.fixture
def context(files: Path) -> Iterator[Context]:
    with Context(files) as opened:
        yield opened


@pytest.fixture
def rootfs(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    directory = tmp_path / "image/rootfs"
    directory.mkdir(parents=True)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    yield directory, fd
    os.close(fd)


def treatment(unpack: bool = False) -> Treatment:
    return Treatment((0, 0), None, unpack, lambda: None)


def archive(*members: tuple[str, bytes, str]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as opened:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o666
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                opened.addfile(info, io.BytesIO(content.encode()))
            else:
                info.linkname, info.devmajor, info.devminor = content, 1, 3
                opened.addfile(info)
    out.seek(0)
    return out


def written_below(directory: Path) -> str:
    """All that the regular files below a directory hold."""
    return "".join(
        path.read_text() for path in directory.rglob("*") if path.is_file() and not path.is_symlink()
    )


def test_links_of_an_archive_end_inside_the_context(context: Context, files: Path, host: Path) -> None:
    up = "../" * 12 + str(host).lstrip("/")
    (files / str(host).lstrip("/")).mkdir(parents=True)
    for number, target in enumerate((str(host), up)):
        context.receive(
            archive(
                (f"l{number}", tarfile.SYMTYPE, target),
                (f"l{number}/x{number}", tarfile.REGTYPE, "x"),
                (f"l{number}/secret", tarfile.REGTYPE, "x"),
            )
        )
        assert (files / str(host).lstrip("/") / f"x{number}").read_text() == "x"


@pytest.mark.parametrize(
    ("name", "kind", "content"),
    [
        ("../x", tarfile.REGTYPE, "x"),
        ("a/../../x", tarfile.SYMTYPE, "/"),
        ("hard", tarfile.LNKTYPE, "../host/secret"),
        ("hard", tarfile.LNKTYPE, "{host}/secret"),
        ("null", tarfile.CHRTYPE, ""),
        ("disk", tarfile.BLKTYPE, ""),
    ],
)
def test_members_that_are_refused(context: Context, host: Path, name: str, kind: bytes, content: str) -> None:
    with pytest.raises(InvalidParameter, match="the build context cannot be unpacked"):
        context.receive(archive((name, kind, content.format(host=host))))


def test_the_dockerfile_is_one_of_the_context(context: Context, files: Path, host: Path) -> None:
    (host / "secret").chmod(0o644)
    for link in (str(host / "secret"), "../../host/secret"):
        (files / "Dockerfile").symlink_to(link)
        for name in ("", "Dockerfile", str(host / "secret"), "../../host/secret"):
            with pytest.raises(InvalidParameter, match="Cannot locate specified Dockerfile"):
                context.take_dockerfile(name)
        (files / "Dockerfile").unlink()
    # what .dockerignore sends away is looked up inside, too
    (files / "d").symlink_to(host)
    (files / str(host).lstrip("/")).mkdir(parents=True)
    (files / str(host).lstrip("/") / "secret").write_text("FROM scratch")
    (files / ".dockerignore").write_text("d\n")
    assert context.take_dockerfile("d/secret") == b"FROM scratch"
    assert not (files / str(host).lstrip("/") / "secret").exists()


def test_sources_are_files_of_the_context(
    context: Context, files: Path, host: Path, rootfs: tuple[Path, int]
) -> None:
    (files / "l").symlink_to(host)
    (files / "secret").symlink_to(host / "secret")
    (files / "d").mkdir()
    (files / "d/kept").symlink_to(host / "secret")
    for word in ("l", "l/secret", "secret", "l/*", "/../../host/secret", "secre?"):
        with contextlib.suppress(InvalidParameter):
            assert find(context.root, word, True) == []
    for word in ("../../host/secret", "d/../../../host/secret"):
        with pytest.raises(InvalidParameter, match="forbidden path outside the build context"):
            find(context.root, word, True)
    directory, fd = rootfs
    place(fd, "/", find(context.root, "d", True), treatment())
    assert (directory / "kept").is_symlink()
    assert SECRET not in written_below(directory)


def test_targets_are_files_of_the_image(
    context: Context, files: Path, host: Path, rootfs: tuple[Path, int]
) -> None:
    directory, fd = rootfs
    (files / "secret").write_text("x")
    (files / "packed.tar").write_bytes(archive(("secret", tarfile.REGTYPE, "x")).getvalue())
    (directory / "l").symlink_to(host)
    (directory / "up").symlink_to("../" * 12 + str(host).lstrip("/"))
    (directory / "f").symlink_to(host / "secret")
    copied, packed = find(context.root, "secret", True), find(context.root, "packed.tar", True)
    everything = find(context.root, ".", True)
    for target in ("/l/", "/up/new", "/f", "/l/a/b/c", "/../../host/", "/l/../l/"):
        place(fd, target, copied, treatment())
        place(fd, f"{target.rstrip('/')}.d", everything, treatment())
        place(fd, f"{target.rstrip('/')}.t/", packed, treatment(unpack=True))
    make_directory(fd, beneath.real_path(fd, "/l/work/dir"))
    # an archive that brings its own links, for ADD
    hostile = archive(("s", tarfile.SYMTYPE, str(host)), ("s/secret", tarfile.REGTYPE, "x"))
    (files / "hostile.tar").write_bytes(hostile.getvalue())
    place(fd, "/h/", find(context.root, "hostile.tar", True), treatment(unpack=True))


def test_a_link_swapped_in_during_the_copy(
    context: Context, files: Path, host: Path, rootfs: tuple[Path, int]
) -> None:
    """Nobody can do that to a context; if somebody could, it would not help."""
    directory, fd = rootfs
    (files / "d").mkdir()
    (files / "d/secret").write_text("plain")
    (files / "link").symlink_to(host)
    end = threading.Event()

    def swap() -> None:
        while not end.is_set():
            for one, other in (("d", "kept"), ("link", "d"), ("d", "link"), ("kept", "d")):
                with contextlib.suppress(OSError):
                    os.rename(files / one, files / other)

    thread = threading.Thread(target=swap)
    thread.start()
    copies, until = 0, time.monotonic() + SECONDS
    try:
        while time.monotonic() < until:
            with contextlib.suppress(InvalidParameter, OSError):
                found = find(context.root, "d", True) + find(context.root, "d/secret", True)
                digest(found, treatment())
                place(fd, f"/{copies}/", found, treatment())
                copies += 1
    finally:
        end.set()
        thread.join()
    assert copies and SECRET not in written_below(directory)


def test_words_of_the_new_flags_end_inside(
    context: Context, files: Path, host: Path, rootfs: tuple[Path, int]
) -> None:
    directory, fd = rootfs
    (files / "d").mkdir()
    (files / "d/out").symlink_to(host)
    (files / "d/f").write_text("f")
    (directory / "d").symlink_to(host)
    for word in ("d/out/secret", "d/./out/*", "**/secret", "d/**"):
        with contextlib.suppress(InvalidParameter):
            place(fd, "/p/", find(context.root, word, True, parents=True), treatment())
    for word in ("../host/./secret", "d/../../host/./secret", "./../host"):
        with pytest.raises(InvalidParameter, match="forbidden path outside the build context"):
            find(context.root, word, True, parents=True)
    place(fd, "/", find(context.root, "d/f", True, parents=True), treatment())  # through the image's link
    assert (directory / str(host).lstrip("/") / "f").read_text() == "f"
    assert SECRET not in written_below(directory)


class Mounted:
    """A build that only mounts: its context, no image, and a container's files as the driver shows them."""

    def __init__(self, context: Context, scratch: Path, rootfs: Path) -> None:
        self.mounts = rootfs
        self.core = SimpleNamespace(
            driver=self,
            build_caches=BuildCaches(scratch / "caches"),
            options=SimpleNamespace(exec_root=scratch / "exec"),
        )
        (scratch / "exec").mkdir()
        options = BuildOptions(secrets={"x": b"x"})
        self.job = Job(cast(Any, self.core), options, context, scratch, Output(lambda _: None), Ending())

    def mount(self, _: str) -> str:
        return str(self.mounts)

    def unmount(self, _: str) -> None:
        pass

    def of(self, text: str) -> list[Mount]:
        """What a RUN with these mounts is given, and what the mount points leave behind of it."""

        async def ready() -> list[Mount]:
            instruction = read(f"RUN {text} true")
            settings = Settings(ImageConfig())
            state = State(0, settings, BuildArguments({}).stage())
            step = StepMounts(self.job, state, mounts(instruction, Words({})), {})
            try:
                await step.look(0, cast(Any, None))
                found = await step.ready()
                step.created(cast(Any, SimpleNamespace(id="x")))
                for mount in found:
                    os.close(beneath.make_directory(self.root, mount.target))
                step.ended()
                return found
            finally:
                await step.close()

        self.root = os.open(self.mounts, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return asyncio.run(ready())
        finally:
            os.close(self.root)


def test_sources_of_mounts_are_files_of_the_context(
    context: Context, files: Path, host: Path, rootfs: tuple[Path, int], tmp_path: Path
) -> None:
    build = Mounted(context, tmp_path, rootfs[0])
    (files / "l").symlink_to(host)
    (files / "up").symlink_to("../" * 12 + str(host).lstrip("/"))
    for word in ("l", "up", "/l/secret", "../host", "../../host/secret", "l/../secret"):
        for rw in ("", ",rw"):
            with pytest.raises(InvalidParameter, match="file does not exist"):
                build.of(f"--mount=source={word},target=/x{rw}")
    (files / str(host).lstrip("/")).mkdir(parents=True)
    (files / str(host).lstrip("/") / "own").write_text("own")
    for word in ("l", "up", f"../../{host}"):  # there is such a directory in the context
        for rw in ("", ",rw"):
            (mount,) = build.of(f"--mount=source={word},target=/x{rw}")
            assert os.listdir(mount.source) == ["own"] and Path(mount.source).resolve() != host


def test_caches_are_below_their_directory(
    context: Context, host: Path, rootfs: tuple[Path, int], tmp_path: Path
) -> None:
    build = Mounted(context, tmp_path, rootfs[0])
    places = set()
    for name in ("../../host", str(host), "a/b", ".", "..", ".trash-x", "x" * 5000):
        (mount,) = build.of(f"--mount=type=cache,id={name},target=/c,mode=0777")
        assert Path(mount.source).parent.parent == tmp_path / "caches"
        places.add(mount.source)
    assert len(places) == 7


def test_mount_points_are_made_and_removed_in_the_image(
    context: Context, host: Path, rootfs: tuple[Path, int], tmp_path: Path
) -> None:
    directory, _ = rootfs
    build = Mounted(context, tmp_path, directory)
    inside = directory / str(host).lstrip("/")
    inside.mkdir(parents=True)
    (directory / "l").symlink_to(host)
    (directory / "up").symlink_to("../" * 12 + str(host).lstrip("/"))
    before = sorted(directory.rglob("*"))
    for target in ("/l/made/deep", "/up/made", "../../l/x", "/l/../../../made", "made/../l/y"):
        build.of(f"--mount=type=tmpfs,target={target}")
        build.of(f"--mount=type=secret,id=x,target={target}")
        assert sorted(directory.rglob("*")) == before, target
    (inside / "there").mkdir()
    build.of("--mount=type=tmpfs,target=/l/there")  # the image's own stays
    assert (inside / "there").is_dir()
    with pytest.raises(InvalidParameter, match="invalid mount target"):
        build.of("--mount=type=tmpfs,target=../..")


def test_a_build_that_waits_for_a_cache_can_be_ended(
    context: Context, rootfs: tuple[Path, int], tmp_path: Path
) -> None:
    build = Mounted(context, tmp_path, rootfs[0])
    state = State(0, Settings(ImageConfig()), BuildArguments({}).stage())
    wanted = mounts(read("RUN --mount=type=cache,target=/c,sharing=locked true"), Words({}))

    async def work() -> None:
        first, second = (StepMounts(build.job, state, wanted, {}) for _ in range(2))
        await first.look(0, cast(Any, None))
        await first.ready()
        await second.look(0, cast(Any, None))
        waiting = asyncio.create_task(second.ready())
        for _ in range(5):
            await asyncio.sleep(0)
        assert not waiting.done()
        build.job.ending.set()
        with pytest.raises(BuildCancelled):
            await waiting
        await second.close()
        await first.close()
        assert [one.users for one in build.core.build_caches.all()] == [0]

    asyncio.run(work())
