"""The step that runs a command: RUN."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

from sampan.building.job import Job
from sampan.building.running import Runner
from sampan.building.state import State
from sampan.building.steps import Steps
from sampan.dockerfile import Instruction
from sampan.dockerfile.heredocs import Heredoc, script_of
from sampan.engine.core import in_thread
from sampan.engine.model import ContainerConfig, Mount
from sampan.errors import InvalidParameter
from sampan.oci.image import Healthcheck

_SCRIPTS = "/dev/pipes"  # where BuildKit has them


class Commands:
    """Runs commands."""

    def __init__(self, job: Job, steps: Steps) -> None:
        self._job = job
        self._steps = steps
        self._runner = Runner(job)

    async def run(
        self, state: State, instruction: Instruction, given: dict[str, str], hidden: set[str]
    ) -> None:
        """RUN.

        Args:
            given: the build arguments, which the command finds in its environment.
            hidden: which of them neither history nor the cache knows of.

        Raises:
            CommandFailed: the command ended with another code than 0.
        """
        script = script_of(instruction.rest, instruction.heredocs)
        command = state.settings.command(_text(instruction, script))
        if not command:
            raise InvalidParameter("RUN requires at least one argument")
        told = [f"{name}={value}" for name, value in given.items() if name not in hidden]
        commit = self._steps.to_commit(state, [f"|{len(told)}", *told, *command] if given else command)
        if await self._steps.cached(state, commit):
            return
        parent_id = state.image_id
        if not parent_id:
            raise InvalidParameter("RUN needs files: nothing has been copied onto scratch yet")
        host_config = copy.deepcopy(self._job.options.host_config)
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
        live = await self._runner.run(config, host_config)
        try:

            def make() -> str:
                snapshot = self._job.core.driver.snapshot(live.id)
                with snapshot:
                    return self._job.core.images.commit(snapshot, parent_id, commit)

            state.image_id = await in_thread(make)
        finally:
            await self._runner.dismiss(live)

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
