"""One build: the stages of a Dockerfile, step by step, each step an image on top of the one before.

The order, the words told meanwhile and what history says are those of Docker's classic builder; other than
there, stages that the target does not need are left out, and COPY and ADD take --chmod.
"""

from __future__ import annotations

import contextlib
import copy

from sampan.building.bases import Bases
from sampan.building.commands import Commands
from sampan.building.filling import Filling
from sampan.building.job import Job
from sampan.building.output import short
from sampan.building.platforms import platform_arguments
from sampan.building.state import State
from sampan.building.steps import Steps
from sampan.dockerfile import (
    HANDLERS,
    BuildArguments,
    Instruction,
    Settings,
    Stage,
    StageArguments,
    Words,
    declared,
    find,
    needed,
    parse,
    split,
)
from sampan.engine.core import in_thread
from sampan.errors import InvalidParameter, NotFound
from sampan.images import Image
from sampan.oci.image import ImageConfig
from sampan.oci.platforms import from_text


class Build:
    """A build under way."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._options = job.options
        self._output = job.output
        self._arguments = BuildArguments(job.options.arguments, platform_arguments(job.options.platform))
        self._steps = Steps(job)
        self._bases = Bases(job, self._steps.hold)
        self._commands = Commands(job, self._steps, self._other_image)
        self._filling = Filling(job, self._steps, self._other_image)
        self._stages: list[Stage] = []
        self._bases_named: list[str] = []  # what the stages stand on, variables replaced
        self._built: dict[int, State] = {}
        self._escape = "\\"
        self._number = self._total = 0

    async def run(self, text: bytes) -> str:
        """Build what a Dockerfile says; the image's id.

        Raises:
            SampanError: it cannot be; the steps that worked stay, as the cache of the next build.
        """
        options = self._options
        arguments = await in_thread(lambda: self._read(text))
        for instruction in arguments:
            self._declare_global(instruction)
        words = Words(self._arguments.for_from(), self._escape)
        self._bases_named = [words.one(stage.base) for stage in self._stages]
        wanted = needed(self._stages, options.target, self._bases_named)
        self._total = len(arguments) + len(options.labels)
        self._total += sum(1 + len(self._stages[at].instructions) for at in wanted)
        if options.cache_from:
            self._steps.cache_from = await in_thread(self._cache_sources)
        for instruction in arguments:
            self._announce(instruction.text)
        image_id = ""
        for at in wanted:
            image_id = await self._stage(at, options.labels if at == wanted[-1] else {})
        unused = self._arguments.unused()
        if unused:
            self._output.line(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed")
        return image_id

    def _read(self, text: bytes) -> list[Instruction]:
        """Take in the Dockerfile's stages; the ARGs before them."""
        dockerfile = parse(text)
        self._escape = dockerfile.escape
        arguments, self._stages = split(dockerfile)
        for instruction in dockerfile.instructions:
            Settings.check(instruction, self._escape)
        return arguments

    def _cache_sources(self) -> list[str]:
        found = []
        for name in self._options.cache_from:
            with contextlib.suppress(NotFound):  # as in Docker: what is not here cannot help
                found.append(self._job.image(name).id)
        return found

    def _announce(self, text: str) -> None:
        self._job.ending.check()
        self._number += 1
        self._output.step(self._number, self._total, text)

    def _declare_global(self, instruction: Instruction) -> None:
        for name, default in declared(instruction, self._escape):
            words = Words(self._arguments.for_from(), self._escape)
            self._arguments.declare_global(words.one(name), None if default is None else words.one(default))

    async def _stage(self, at: int, labels: dict[str, str]) -> str:
        stage = self._stages[at]
        self._announce(stage.start.text)
        state = await self._begin(at)
        self._done(state)
        for instruction in stage.instructions:
            self._announce(instruction.text)
            await self._follow(state, instruction)
            self._done(state)
        for name, value in sorted(labels.items()):
            self._announce(f"LABEL {name}={value}")
            state.config.labels = {**(state.config.labels or {}), name: value}
            await self._steps.commit(state, f" LABEL {name}={value}")
            self._done(state)
        if not state.image_id:
            raise InvalidParameter("No image was generated. Is your Dockerfile empty?")
        self._output.result(state.image_id)
        self._built[at] = state
        return state.image_id

    def _done(self, state: State) -> None:
        self._output.line(f" ---> {short(state.image_id)}")

    async def _begin(self, at: int) -> State:
        stage = self._stages[at]
        name = self._bases_named[at]
        wanted = Words(self._arguments.for_from(), self._escape).one(stage.platform)
        if not name:
            raise InvalidParameter(f"base name ({stage.base}) should not be blank")
        platform = from_text(wanted) if wanted else self._options.platform
        before = None if name.isdecimal() else find(self._stages, name, at)
        arguments = self._arguments.stage(None if before is None else self._built[before].arguments)
        settings = Settings(ImageConfig(), self._escape)
        state = State(at, settings, arguments, cached=self._options.use_cache)
        if before is None and name == "scratch":
            state.platform = platform
        else:
            if before is not None:
                image = await self._image_of_stage(before)
            else:
                image = await self._bases.image(name, platform)
            state.image_id = image.id
            state.settings = Settings(copy.deepcopy(image.config), self._escape)
        state.complete_path()
        triggers = state.take_triggers()
        if triggers:
            self._output.line(f"# Executing {len(triggers)} build trigger{'s' if len(triggers) > 1 else ''}")
        for trigger in triggers:
            await self._follow(state, self._trigger(trigger))
        return state

    def _trigger(self, text: str) -> Instruction:
        try:
            instruction = parse(text).instructions[0]
            Settings.check(instruction, self._escape)
        except InvalidParameter as error:
            raise InvalidParameter(f"ONBUILD {text[:100]}: of the base image: {error.message}") from None
        return instruction

    async def _image_of_stage(self, at: int) -> Image:
        """The image of a stage; one that only a base image's ONBUILD asks for is built now."""
        if at not in self._built:
            self._total += 1 + len(self._stages[at].instructions)
            await self._stage(at, {})
        image_id = self._built[at].image_id
        return await in_thread(lambda: self._job.image(image_id))

    async def _other_image(self, at: int, name: str) -> Image:
        """What `COPY --from` names in a stage: one before it, or an image."""
        before = find(self._stages, name, at)
        if before is not None:
            return await self._image_of_stage(before)
        return await self._bases.image(name, self._options.platform)

    async def _follow(self, state: State, instruction: Instruction) -> None:
        own = state.environment()
        given = state.arguments.beside(own)
        variables = {**given, **own}
        words = Words(variables, self._escape)
        keyword = instruction.keyword
        if keyword == "RUN":
            hidden = {name for name in given if not self._arguments.in_history(name)}
            await self._commands.run(state, instruction, words, given, hidden)
        elif keyword in ("COPY", "ADD"):
            await self._filling.fill(state, instruction, words)
        elif keyword == "ARG":
            await self._steps.commit(
                state, f" ARG {' '.join(self._declare(state.arguments, instruction, words))}"
            )
        elif keyword == "MAINTAINER":
            state.author = instruction.rest
            await self._steps.commit(state, f" MAINTAINER {state.author}")
        elif keyword == "WORKDIR":
            said = state.settings.apply(instruction, variables)
            await self._filling.make_workdir(state, said)
        elif keyword in HANDLERS:
            await self._steps.commit(state, f" {state.settings.apply(instruction, variables)}")
        else:
            raise InvalidParameter(f"{keyword} isn't allowed as an ONBUILD trigger")

    @staticmethod
    def _declare(arguments: StageArguments, instruction: Instruction, words: Words) -> list[str]:
        """Take up the arguments of an ARG; what history says of each."""
        said = []
        for written, default in declared(instruction, words.escape):
            name, value = words.one(written), None if default is None else words.one(default)
            arguments.declare(name, value)
            said.append(name if value is None else f"{name}={value}")
        return said

    def close(self) -> None:
        """Let go of the images that it needed."""
        self._steps.close()
