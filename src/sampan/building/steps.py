"""One step of a build: found among those that were done before, or done and made an image of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from sampan.building.job import Job
from sampan.building.layers import changed
from sampan.building.state import State
from sampan.dockerfile.settings import DEFAULT_SHELL
from sampan.engine.core import in_thread
from sampan.images import Commit
from sampan.storage import Snapshot

Work = Callable[[int], None]


class Steps:
    """Makes images of steps.

    Attributes:
        cache_from: ids of the images whose steps alone count as done before; None for all here.
    """

    def __init__(self, job: Job) -> None:
        self.cache_from: list[str] | None = None
        self._job = job
        self._core = job.core
        self._held: list[str] = []

    # --- images in use ---

    def hold(self, image_id: str) -> None:
        """Keep an image from being pruned or removed until the build is over; from any thread."""
        self._core.build_images.hold(image_id)
        self._held.append(image_id)

    def close(self) -> None:
        """Let go of all images."""
        for image_id in self._held:
            self._core.build_images.release(image_id)
        self._held.clear()

    # --- steps ---

    async def cached(self, state: State, commit: Commit) -> bool:
        """Whether the step was done before; then its image is the state's."""
        if not state.cached:
            return False
        found = await in_thread(lambda: self._found(state.image_id, commit))
        state.cached = found is not None
        if found is None:
            return False
        self._job.output.line(" ---> Using cache")
        state.image_id = found
        return True

    def _found(self, parent_id: str, commit: Commit) -> str | None:
        images = self._core.images
        with images.lock:
            found = images.find_step(parent_id, commit, self.cache_from)
            if found is not None:
                self.hold(found)
        return found

    def make(self, snapshot: Snapshot | None, parent_id: str, commit: Commit) -> str:
        """Make a step's image, and keep it until the build is over; to be called in a thread."""
        return self._core.images.commit(snapshot, parent_id, commit, made=self.hold)

    def to_commit(self, state: State, created_by: Sequence[str]) -> Commit:
        """What a step's image says, which has been made by the words `created_by`."""
        config = copy.deepcopy(state.config)
        return Commit(config, state.author, "", " ".join(created_by), state.platform)

    async def commit(self, state: State, said: str, work: Work | None = None) -> None:
        """A step that runs nothing: an image that says something else, and holds what `work` changes.

        Args:
            said: what history says of it.
            work: gets the descriptor of the image's root directory, in a thread.
        """
        commit = self.to_commit(state, [*(state.config.shell or DEFAULT_SHELL), f"#(nop) {said}"])
        if await self.cached(state, commit):
            return
        parent_id = state.image_id

        def make() -> str:
            if work is None:
                return self.make(None, parent_id, commit)
            top_layer = self._job.image(parent_id).top_layer if parent_id else None
            snapshot = changed(self._core, top_layer, work)
            with snapshot:
                self._job.ending.check()
                return self.make(snapshot, parent_id, commit)

        state.image_id = await in_thread(make)
