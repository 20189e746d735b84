"""A build from its first byte to its tags."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from sampan.building.builder import Build
from sampan.building.context import Context, check_remote
from sampan.building.ending import Ending
from sampan.building.git import clone, is_git, repository
from sampan.building.job import Job
from sampan.building.options import BuildOptions
from sampan.building.output import Output, short
from sampan.engine import Core
from sampan.engine.core import in_thread
from sampan.storage.tar_reader import Readable
from sampan.threads import in_new_thread

_KEEP_GIT = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"  # BuildKit's argument


async def build(
    core: Core,
    options: BuildOptions,
    body: Readable,
    tell: Callable[[dict[str, Any]], None],
    ending: Ending,
    build_id: str = "",
) -> str:
    """Build an image and give it its names.

    Args:
        body: the context as the client sends it, unless it is a remote one.
        tell: takes the messages, from any thread.
        ending: ends the build early.
        build_id: by which others may end it.

    Returns:
        the image's id.

    Raises:
        SampanError: it cannot be built; no container of it is left but one whose command has failed.
    """
    output = Output(tell)
    names = [core.images.check_name(tag) for tag in dict.fromkeys(options.tags)]
    if options.remote:
        check_remote(options.remote)
    build_id = build_id or secrets.token_hex(16)
    core.builds[build_id] = ending.set
    hold = ExitStack()
    try:
        scratch = await in_thread(lambda: hold.enter_context(core.images.scratch()))
        context, dockerfile = await in_new_thread(
            lambda: _receive(core, options, body, scratch, ending, hold), "context"
        )
        ending.check()
        job = Job(core, options, context, scratch, output, ending)
        with closing(Build(job)) as work:
            image_id = await work.run(dockerfile)
            output.line(f"Successfully built {short(image_id)}")
            for name in names:
                await in_thread(lambda name=name: core.images.tag(image_id, str(name)))  # type: ignore[misc]
                output.line(f"Successfully tagged {name.familiar}")
        return image_id
    finally:
        core.builds.pop(build_id, None)
        await asyncio.shield(in_thread(hold.close))


def _receive(
    core: Core, options: BuildOptions, body: Readable, scratch: Path, ending: Ending, hold: ExitStack
) -> tuple[Context, bytes]:
    """The context, unpacked, and the text of its Dockerfile."""
    directory = scratch / "context"
    name = options.dockerfile
    if is_git(options.remote):
        keep = options.arguments.get(_KEEP_GIT) in ("1", "true")
        clone(repository(options.remote), scratch / "git", keep, ending).rename(directory)
        context = hold.enter_context(Context(directory))
        return context, context.take_dockerfile(name)
    directory.mkdir(mode=0o755)
    context = hold.enter_context(Context(directory))
    if options.remote:
        file = core.images.registries.fetch(options.remote)
        try:
            alone = context.receive_remote(file)
        finally:
            file.close()
        name = "" if alone else name
    else:
        context.receive(body)
    return context, context.take_dockerfile(name)
