"""The step that runs a command: RUN."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

from sampan.building.job import Job
from sampan.building.mounting import OtherImage, StepMounts
from sampan.building.running import Runner
from sampan.building.state import State
from sampan.building.steps import Steps
from sampan.dockerfile import Instruction, Words
from sampan.dockerfile.heredocs import Heredoc, script_of
from sampan.dockerfile.mounts import mounts as run_mounts
from sampan.engine.core import in_thread
from sampan.engine.model import ContainerConfig, HostConfig, Mount
from sampan.errors import InvalidParameter
from sampan.oci.image import Healthcheck

_SCRIPTS = "/dev/pipes"  # where BuildKit has them


class Commands:
    """Runs commands.

    Args:
        other_image: the image that a mount's `from=` names, in the stage of that index.
    """

    def __init__(self, job: Job, steps: Steps, other_image: OtherImage) -> None:
        self._job = job
        self._steps = steps
        self._other_image = other_image
        self._digests: dict[str, str] = {}  # of the context's files that were mounted
        self._runner = Runner(job)

    async def run(
        self,
        state: State,
        instruction: Instruction,
        words: Words,
        given: dict[str, str],
        hidden: set[str],
    ) -> None:
        """RUN.

        Args:
            words: replace the variables of its mounts.
            given: the build arguments, which the command finds in its environment.
            hidden: which of them neither history nor the cache knows of.

        Raises:
            CommandFailed: the command ended with another code than 0.
        """
        script = script_of(instruction.rest, instruction.heredocs)
        command = state.settings.command(_text(instruction, script))
        if not command:
            raise InvalidParameter("RUN requires at least one argument")
        network = instruction.flags.get("network", "default")
        mounts = StepMounts(self._job, state, run_mounts(instruction, words), self._digests)
        await mounts.look(state.index, self._other_image)
        told = [f"{name}={value}" for name, value in given.items() if name not in hidden]
        said = [f"|{len(told)}", *told] if given else []
        said += [] if network == "default" else [f"--network={network}"]
        commit = self._steps.to_commit(state, [*said, *mounts.said, *command])
        if await self._steps.cached(state, commit):
            return
        parent_id = state.image_id
        if not parent_id:
            raise InvalidParameter("RUN needs files: nothing has been copied onto scratch yet")
        host_config = self._host_config(network)
        if script is not None and script.content.startswith("#!"):
            file = await in_thread(lambda: self._written(script))
            host_config.mounts = [Mount("bind", str(file.parent), _SCRIPTS, read_only=True)]
            command = state.settings.command(f"{_SCRIPTS}/{file.name}")
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
        try:
            host_config.mounts = [*(host_config.mounts or []), *await mounts.ready()]
            live = await self._runner.run(config, host_config, mounts)
            try:

                def make() -> str:
                    mounts.ended()
                    snapshot = self._job.core.driver.snapshot(live.id)
                    with snapshot:
                        return self._steps.make(snapshot, parent_id, commit)

                state.image_id = await in_thread(make)
            finally:
                await self._runner.dismiss(live)
        finally:
            await mounts.close()

    def _host_config(self, network: str) -> HostConfig:
        """What the command is held to; a Dockerfile alone does not get the host's network."""
        host_config = copy.deepcopy(self._job.options.host_config)
        if network == "host" and host_config.network_mode != "host":
            raise InvalidParameter("RUN --network=host: only for a build that was given --network host")
        if network == "none":
            host_config.network_mode = "none"
        return host_config

    def _written(self, script: Heredoc) -> Path:
        """A here-document that names its interpreter, as a program in a directory of its own."""
        directory = Path(tempfile.mkdtemp(dir=self._job.scratch))
        directory.chmod(0o755)
        file = directory / (script.name.replace("/", "_").strip(".") or "script")
        file.write_bytes(script.content.encode("utf-8", "surrogateescape"))
        file.chmod(0o755)
        return file


def _text(instruction: Instruction, script: Heredoc | None) -> str:
    """What follows RUN, as the shell is to get it, with its here-documents.

    One that is all there is, is itself what the shell runs: so shells may be used that know none.
    """
    if script is not None:
        return script.content
    return instruction.rest + "".join(one.rest for one in instruction.heredocs)
