"""One step of a build: found among those that were done before, or done and made an image of."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

from sampan.building.ending import Ending
from sampan.building.layers import changed
from sampan.building.output import Output
from sampan.building.running import Runner
from sampan.building.state import State
from sampan.dockerfile import Instruction
from sampan.dockerfile.settings import DEFAULT_SHELL
from sampan.engine import Core
from sampan.engine.core import in_thread
from sampan.engine.model import ContainerConfig, HostConfig
from sampan.errors import InvalidParameter
from sampan.images import Commit
from sampan.oci.image import Healthcheck

Work = Callable[[int], None]


class Steps:
    """Makes images of steps.

    Attributes:
        cache_from: ids of the images whose steps alone count as done before; None for all here.
    """

    def __init__(self, core: Core, output: Output, ending: Ending, runner: Runner) -> None:
        self.cache_from: list[str] | None = None
        self._core = core
        self._output = output
        self._ending = ending
        self._runner = runner
        self._held: list[str] = []

    # --- images in use ---

    def hold(self, image_id: str) -> None:
        """Keep an image from being pruned or removed until the build is over."""
        if image_id:
            self._held.append(image_id)
            self._core.build_images[image_id] += 1

    def close(self) -> None:
        """Let go of all images."""
        for image_id in self._held:
            self._core.build_images[image_id] -= 1
            if not self._core.build_images[image_id]:
                del self._core.build_images[image_id]
        self._held.clear()

    # --- steps ---

    async def _cached(self, state: State, commit: Commit) -> bool:
        """Whether the step was done before; then its image is the state's."""
        if not state.cached:
            return False
        parent = state.image_id
        found = await in_thread(lambda: self._core.images.find_step(parent, commit, self.cache_from))
        state.cached = found is not None
        if found is None:
            return False
        self._output.line(" ---> Using cache")
        state.image_id = found
        return True

    def _to_commit(self, state: State, created_by: Sequence[str]) -> Commit:
        config = copy.deepcopy(state.config)
        return Commit(config, state.author, "", " ".join(created_by), state.platform)

    async def commit(self, state: State, said: str, work: Work | None = None) -> None:
        """A step that runs nothing: an image that says something else, and holds what `work` changes.

        Args:
            said: what history says of it.
            work: gets the descriptor of the image's root directory, in a thread.
        """
        commit = self._to_commit(state, [*(state.config.shell or DEFAULT_SHELL), f"#(nop) {said}"])
        if await self._cached(state, commit):
            return
        images, parent_id = self._core.images, state.image_id

        def make() -> str:
            if work is None:
                return images.commit(None, parent_id, commit)
            top_layer = images.resolve(parent_id).top_layer if parent_id else None
            snapshot = changed(self._core, top_layer, work)
            with snapshot:
                self._ending.check()
                return images.commit(snapshot, parent_id, commit)

        state.image_id = await in_thread(make)

    async def run(
        self,
        state: State,
        instruction: Instruction,
        given: dict[str, str],
        hidden: set[str],
        host_config: HostConfig,
    ) -> None:
        """RUN.

        Args:
            given: the build arguments, which the command finds in its environment.
            hidden: which of them neither history nor the cache knows of.

        Raises:
            CommandFailed: the command ended with another code than 0.
        """
        command = state.settings.command(instruction.rest)
        if not command:
            raise InvalidParameter("RUN requires at least one argument")
        told = [f"{name}={value}" for name, value in given.items() if name not in hidden]
        commit = self._to_commit(state, [f"|{len(told)}", *told, *command] if given else command)
        if await self._cached(state, commit):
            return
        parent_id = state.image_id
        if not parent_id:
            raise InvalidParameter("RUN needs files: nothing has been copied onto scratch yet")
        config = ContainerConfig(
            image=parent_id,
            user=state.config.user,
            env=[*(state.config.env or []), *(f"{name}={value}" for name, value in given.items())],
            entrypoint=[""],
            cmd=command,
            working_dir=state.config.working_dir,
            healthcheck=Healthcheck(test=["NONE"]),
            shell=state.config.shell,
        )
        live = await self._runner.run(config, copy.deepcopy(host_config))
        try:

            def make() -> str:
                snapshot = self._core.driver.snapshot(live.id)
                with snapshot:
                    return self._core.images.commit(snapshot, parent_id, commit)

            state.image_id = await in_thread(make)
        finally:
            await self._runner.dismiss(live)
