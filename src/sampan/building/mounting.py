"""The mounts of a RUN: what they are made of, and what of them counts for the cache."""

from __future__ import annotations

import asyncio
import json
import os
import posixpath
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.building.copying import Source, Treatment, digest, located, place
from sampan.building.job import Job
from sampan.building.layers import files_of, opened
from sampan.building.secrets import SecretFiles
from sampan.building.state import State
from sampan.building.stubs import Stubs
from sampan.dockerfile.mounts import BIND, CACHE, LOCKED, PRIVATE, SECRET, SSH, TMPFS, RunMount
from sampan.engine import Live
from sampan.engine.build_caches import BuildCache
from sampan.engine.core import in_thread
from sampan.engine.model import ImageOptions, Mount, TmpfsOptions
from sampan.errors import InvalidParameter, Unsupported
from sampan.images import Image

if TYPE_CHECKING:
    from collections.abc import Iterator

OtherImage = Callable[[int, str], Awaitable[Image]]


class StepMounts:
    """The mounts of one command.

    Args:
        digests: of the context's files by their paths, as far as they are known: it stays the same.

    Attributes:
        said: what counts of them for the cache, for history.
    """

    def __init__(self, job: Job, state: State, wanted: list[RunMount], digests: dict[str, str]) -> None:
        self.said: list[str] = []
        self._job = job
        self._core = job.core
        self._working_dir = state.config.working_dir
        self._volumes = list(state.config.volumes or ())
        self._wanted = wanted
        self._digests = digests
        self._images: dict[int, Image] = {}
        self._hold = ExitStack()
        self._secrets = SecretFiles(job.core)
        self._targets: list[str] = []
        self._stubs: Stubs | None = None

    async def look(self, at: int, other_image: OtherImage) -> None:
        """Find what the mounts are made of.

        Args:
            at: index of the stage.
            other_image: the image that `from=` names, in the stage of that index.

        Raises:
            InvalidParameter: it is not there, or not to be had.
            Unsupported: it cannot be had from a client that is not BuildKit's.
        """
        for number, mount in enumerate(self._wanted):
            if mount.type == SSH:
                raise Unsupported(
                    "RUN --mount=type=ssh needs BuildKit, which is not offered: no agent can be reached from"
                    " here; give a key as a secret, or fetch before the build"
                )
            if mount.type == SECRET and mount.env is not None:
                raise Unsupported(
                    "RUN --mount=type=secret,env=… is not offered: it would be written down with the"
                    " container; let the command read the secret's file (target=)"
                )
            mount.place(self._working_dir)
            text = f"--mount={mount.text()}"
            if mount.type == SECRET and mount.required and mount.id not in self._job.options.secrets:
                raise InvalidParameter(
                    f"secret {mount.id}: not found: give it with sampan build --secret id={mount.id}"
                )
            if mount.origin and not (mount.type == CACHE and mount.origin == "scratch"):
                self._images[number] = image = await other_image(at, mount.origin)
                text += f",{image.top_layer}"
            if mount.type == BIND and not mount.origin:
                text += "," + await in_thread(partial(self._digest, mount))
            self.said.append(text)

    async def ready(self) -> list[Mount]:
        """Make them; wants a `close`.

        Raises:
            SampanError, OSError: one cannot be made.
        """
        caches = await self._caches()
        found = []
        for number, mount in enumerate(self._wanted):
            target = mount.place(self._working_dir)
            if mount.type == CACHE:
                made = Mount(
                    "bind", str(self._core.build_caches.data(caches[number])), target, mount.read_only
                )
            elif mount.type == TMPFS:
                options = TmpfsOptions(mount.size_bytes, options=[["exec"]])
                made = Mount("tmpfs", "", target, mount.read_only, tmpfs_options=options)
            elif mount.type == BIND:
                made = await in_thread(partial(self._bound, mount, self._images.get(number), target))
            elif mount.id in self._job.options.secrets:
                content = self._job.options.secrets[mount.id]
                source = await in_thread(
                    partial(self._secrets.add, content, mount.mode, mount.uid, mount.gid)
                )
                made = Mount("bind", source, target, read_only=True)
            else:
                continue
            found.append(made)
            self._targets.append(target)
        return found

    # --- the command's life, in a thread ---

    def created(self, live: Live) -> None:
        """Its container is there, and not started."""
        if self._targets or self._volumes:
            self._stubs = Stubs(self._core, live.id, self._targets, self._volumes)

    def started(self) -> None:
        """It runs, and has its mounts."""
        self._secrets.close()

    def ended(self) -> None:
        """It has worked, and nothing is mounted any more."""
        if self._stubs is not None:
            self._stubs.remove()

    async def close(self) -> None:
        """Let go of everything."""
        self._hold.close()
        await in_thread(self._secrets.close)

    # --- what they are made of ---

    def _digest(self, mount: RunMount) -> str:
        source = _find(self._job.context.root, mount)
        if source.path not in self._digests:
            treatment = Treatment((0, 0), None, False, self._job.ending.check)
            self._digests[source.path] = digest([source], treatment)
        return self._digests[source.path]

    def _bound(self, mount: RunMount, image: Image | None, target: str) -> Mount:
        if not mount.read_only:
            return Mount("bind", self._copied(mount, image), target)
        if image is None:
            source = _find(self._job.context.root, mount)
            return Mount(
                "bind", f"{self._job.context.directory}{source.path.rstrip('/')}", target, read_only=True
            )
        with self._files(image) as root:
            part = _find(root, mount).path.strip("/")
        return Mount("image", image.id, target, read_only=True, image_options=ImageOptions(part))

    def _copied(self, mount: RunMount, image: Image | None) -> str:
        """A copy for a mount that may be written to: what is written is nobody's afterwards."""
        directory = Path(tempfile.mkdtemp(dir=self._job.scratch))
        with self._files(image) as root, opened(str(directory)) as into:
            source = _find(root, mount)
            directory.chmod(0o755)
            place(into, "/", [source], Treatment(None, None, False, self._job.ending.check))
        return str(directory if source.directory else directory / source.name)

    @contextmanager
    def _files(self, image: Image | None) -> Iterator[int]:
        if image is None:
            yield self._job.context.root
            return
        with files_of(self._core, image) as root:
            if root is None:
                raise InvalidParameter("RUN --mount: from: the image has no files")
            yield root

    # --- caches ---

    async def _caches(self) -> dict[int, BuildCache]:
        """The caches of the mounts, by their number; one that is wanted twice is one."""
        wanted: dict[str, list[int]] = {}
        for number, mount in enumerate(self._wanted):
            if mount.type == CACHE:
                wanted.setdefault(self._key(number), []).append(number)
        found: dict[int, BuildCache] = {}
        for key, numbers in sorted(wanted.items()):  # in one order everywhere: nobody waits in a circle
            cache = await self._take(key, numbers[0])
            self._hold.callback(self._core.build_caches.give_back, cache)
            found |= dict.fromkeys(numbers, cache)
        return found

    def _key(self, number: int) -> str:
        mount, image = self._wanted[number], self._images.get(number)
        base = [image.top_layer if image is not None else "", posixpath.join("/", mount.source)]
        return json.dumps([mount.id, *base, mount.mode, mount.uid, mount.gid])

    async def _take(self, key: str, number: int) -> BuildCache:
        mount, image, ending = self._wanted[number], self._images.get(number), self._job.ending
        description = f"cached mount {mount.place(self._working_dir)} with id {json.dumps(mount.id)}"
        fill = partial(self._fill, mount, image)
        alone, fresh = mount.sharing == LOCKED, mount.sharing == PRIVATE
        taking = asyncio.ensure_future(self._core.build_caches.take(key, description, alone, fresh, fill))
        ended = asyncio.ensure_future(ending.wait())
        try:
            await asyncio.wait((taking, ended), return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                return taking.result()
            ending.check()
            return await taking
        finally:
            ended.cancel()
            taking.cancel()

    def _fill(self, mount: RunMount, image: Image | None, directory: Path) -> None:
        """Make the directory of a new cache."""
        directory.mkdir()
        if image is not None:
            with self._files(image) as root, opened(str(directory)) as into:
                source = _find(root, mount)
                if not source.directory:
                    raise InvalidParameter(f"RUN --mount: {mount.source} is no directory")
                place(into, "/", [source], Treatment(None, None, False, self._job.ending.check))
        os.chown(directory, mount.uid or 0, mount.gid or 0)
        directory.chmod(0o755 if mount.mode is None else mount.mode)


def _find(root: int, mount: RunMount) -> Source:
    """What a mount's source means beneath a root."""
    try:
        return located(root, posixpath.join("/", mount.source), mount.source or "/", context=False)
    except InvalidParameter as error:
        raise InvalidParameter(f"RUN --mount: {error.message}") from None
