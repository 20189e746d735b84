"""The steps that put files into an image: COPY, ADD and WORKDIR."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

from sampan.building.context import Context
from sampan.building.copying import Source, Treatment, digest, find, make_directory, place
from sampan.building.ending import Ending
from sampan.building.layers import files_of
from sampan.building.output import Output
from sampan.building.state import State
from sampan.building.steps import Steps
from sampan.building.web import fetch, is_url
from sampan.dockerfile import Instruction, Words
from sampan.engine import Core
from sampan.engine.core import in_thread
from sampan.engine.spec.users import lookup_user
from sampan.errors import InvalidParameter
from sampan.images import Image
from sampan.linux import beneath

OtherImage = Callable[[int, str], Awaitable[Image]]


class Filling:
    """Puts files into images.

    Args:
        other_image: the image that `--from` names, in the stage of that index.
        scratch: a directory for what is downloaded.
    """

    def __init__(
        self,
        core: Core,
        steps: Steps,
        other_image: OtherImage,
        context: Context,
        scratch: Path,
        output: Output,
        ending: Ending,
    ) -> None:
        self._core = core
        self._steps = steps
        self._other_image = other_image
        self._context = context
        self._scratch = scratch
        self._output = output
        self._ending = ending

    async def make_workdir(self, state: State, said: str) -> None:
        """Make the directory that the state works in."""
        path = state.config.working_dir
        await self._steps.commit(
            state, said, lambda root: make_directory(root, beneath.real_path(root, path))
        )

    async def fill(self, state: State, instruction: Instruction, words: Words) -> None:
        """COPY or ADD.

        Raises:
            InvalidParameter: what is to be copied is not there, or cannot come where it is to.
        """
        hold = ExitStack()
        try:
            await self._fill(state, instruction, words, hold)
        finally:
            await in_thread(hold.close)

    async def _fill(self, state: State, instruction: Instruction, words: Words, hold: ExitStack) -> None:
        keyword = instruction.keyword
        flags = {name: words.one(value) for name, value in instruction.flags.items()}
        *sources, target = [words.one(word) for word in instruction.words()]
        if not target:
            raise InvalidParameter(f"{keyword} requires a destination")
        mode = _mode(flags["chmod"]) if "chmod" in flags else None
        origin = flags.get("from", "")
        kept = bool(origin) and "chown" not in flags
        check = self._ending.check
        how = Treatment(None if kept else (0, 0), mode, unpack=keyword == "ADD", check=check)
        image = await self._other_image(state.index, origin) if origin else None
        root = await in_thread(lambda: self._root(image, hold))
        found = await in_thread(lambda: self._find(keyword, sources, target, root, not origin, hold))
        if (len(found) > 1 or len(sources) > 1) and not target.endswith("/") and target != ".":
            raise InvalidParameter(
                f"When using {keyword} with more than one source file, the destination must be a directory"
                " and end with a /"
            )
        identity = await in_thread(lambda: digest(found, how))
        options = "".join(f"--{name}={flags[name]} " for name in ("chown", "chmod") if name in flags)
        path = _target(state.config.working_dir, target)

        def work(into: int) -> None:
            owner = _owner(into, flags["chown"]) if "chown" in flags else how.owner
            place(into, path, found, Treatment(owner, mode, how.unpack, check, chosen="chown" in flags))

        await self._steps.commit(state, f"{keyword} {options}{identity} in {target} ", work)

    def _root(self, image: Image | None, hold: ExitStack) -> int:
        """The root directory that files are taken from."""
        if image is None:
            return self._context.root
        root = hold.enter_context(files_of(self._core, image))
        if root is None:
            raise InvalidParameter("invalid from flag value: the image has no files")
        return root

    def _find(
        self, keyword: str, words: list[str], target: str, root: int, context: bool, hold: ExitStack
    ) -> list[Source]:
        found: list[Source] = []
        for word in words:
            if keyword == "ADD" and is_url(word):
                source = fetch(self._core, word, target, self._scratch, self._output, self._ending)
                hold.callback(os.close, source.root)
                found.append(source)
                continue
            try:
                found += find(root, word, context)
            except InvalidParameter as error:
                raise InvalidParameter(f"{keyword} failed: {error.message}") from None
        if not found:
            raise InvalidParameter(f"{keyword} failed: no source files were specified")
        return found


def _target(workdir: str, target: str) -> str:
    """Where a target is, from the root; with "/" at its end where it must be a directory."""
    whole = "/" + posixpath.normpath(posixpath.join("/", workdir, target)).lstrip("/")
    return whole.rstrip("/") + "/" if target.endswith("/") or target == "." else whole


def _mode(text: str) -> int:
    if not text.isdecimal() or set(text) & set("89") or int(text, 8) > 0o7777:
        raise InvalidParameter(f"invalid chmod parameter: '{text}': an octal number up to 7777 is wanted")
    return int(text, 8)


def _owner(root: int, text: str) -> tuple[int, int]:
    """uid and gid of `USER[:GROUP]`; without a group the user's name stands for that, or else the uid."""
    user, _, group = text.partition(":")
    found = lookup_user(root, f"{user}:{group}")
    if group:
        return found.uid, found.gid
    try:
        return found.uid, lookup_user(root, f"0:{user}").gid
    except InvalidParameter:
        return found.uid, found.uid
