"""The steps that put files into an image: COPY, ADD and WORKDIR."""

from __future__ import annotations

import os
import posixpath
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from sampan.building.copying import Source, Treatment, digest, find, make_directory, place
from sampan.building.git import clone, is_git, repository
from sampan.building.job import Job
from sampan.building.layers import files_of
from sampan.building.mounting import OtherImage
from sampan.building.state import State
from sampan.building.steps import Steps
from sampan.building.web import fetch, is_url
from sampan.dockerfile import Copied, Instruction, Words, copied
from sampan.dockerfile.ignoring import Ignored
from sampan.engine.core import in_thread
from sampan.engine.spec.users import lookup_user
from sampan.errors import InvalidParameter
from sampan.images import Image
from sampan.linux import beneath
from sampan.threads import in_new_thread


class Filling:
    """Puts files into images.

    Args:
        other_image: the image that `--from` names, in the stage of that index.
    """

    def __init__(self, job: Job, steps: Steps, other_image: OtherImage) -> None:
        self._job = job
        self._steps = steps
        self._other_image = other_image

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
        asked = copied(instruction, words)
        check = self._job.ending.check
        excluded = Ignored("\n".join(asked.exclude)) if asked.exclude else None
        kept = bool(asked.origin) and not asked.chown
        how = Treatment(
            None if kept else (0, 0), asked.mode, asked.keyword == "ADD", check, excluded=excluded
        )
        image = await self._other_image(state.index, asked.origin) if asked.origin else None
        root = await in_thread(lambda: self._root(image, hold))
        # ADD may wait for a server.
        found = await in_new_thread(lambda: self._find(asked, root, excluded, hold), "add")
        path = _target(state.config.working_dir, f"{asked.target}/" if asked.parents else asked.target)
        if not path.endswith("/") and (len(found) > 1 or len(asked.sources) + len(asked.files) > 1):
            raise InvalidParameter(
                f"When using {asked.keyword} with more than one source file, the destination must be"
                " a directory and end with a /"
            )
        identity = await in_thread(lambda: digest(found, how))

        def work(into: int) -> None:
            owner = _owner(into, asked.chown) if asked.chown else how.owner
            place(into, path, found, replace(how, owner=owner, chosen=bool(asked.chown)))

        said = f"{asked.keyword} {asked.options}{identity} in {asked.target} "
        await self._steps.commit(state, said, work)

    def _root(self, image: Image | None, hold: ExitStack) -> int:
        """The root directory that files are taken from."""
        if image is None:
            return self._job.context.root
        root = hold.enter_context(files_of(self._job.core, image))
        if root is None:
            raise InvalidParameter("invalid from flag value: the image has no files")
        return root

    def _find(self, asked: Copied, root: int, excluded: Ignored | None, hold: ExitStack) -> list[Source]:
        found: list[Source] = []
        for word in asked.sources:
            if asked.keyword == "ADD" and is_git(word):
                source = self._cloned(word, asked)
                hold.callback(os.close, source.root)
                found.append(source)
                continue
            remote = asked.keyword == "ADD" and is_url(word)
            if asked.checksum and not remote:
                raise InvalidParameter("checksum can't be specified for non-HTTP(S) sources")
            try:
                if remote:
                    source = fetch(self._job, word, asked.target, asked.checksum)
                    hold.callback(os.close, source.root)
                    found.append(source)
                else:
                    found += find(root, word, not asked.origin, asked.parents)
            except InvalidParameter as error:
                raise InvalidParameter(f"{asked.keyword} failed: {error.message}") from None
        if excluded is not None:
            found = [one for one in found if one.directory or not excluded.excludes(one.name)]
        for name, text in asked.files:
            source = self._written(name, text)
            hold.callback(os.close, source.root)
            found.append(source)
        if not found and excluded is None:
            raise InvalidParameter(f"{asked.keyword} failed: no source files were specified")
        return found

    def _cloned(self, url: str, asked: Copied) -> Source:
        """A repository as a directory to copy."""
        if asked.checksum:
            raise InvalidParameter(
                "checksum can't be specified for Git repositories: name a commit (URL#COMMIT)"
            )
        place = Path(tempfile.mkdtemp(dir=self._job.scratch)) / "git"
        directory = clone(repository(url), place, asked.keep_git, self._job.ending)
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return Source(root, "/", directory.name, directory=True)

    def _written(self, name: str, text: str) -> Source:
        """A here-document as a file to copy."""
        directory = Path(tempfile.mkdtemp(dir=self._job.scratch))
        (directory / "file").write_bytes(text.encode("utf-8", "surrogateescape"))
        (directory / "file").chmod(0o644)
        root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        return Source(root, "/file", name, directory=False, may_unpack=False)


def _target(workdir: str, target: str) -> str:
    """Where a target is, from the root; with "/" at its end where it must be a directory."""
    whole = "/" + posixpath.normpath(posixpath.join("/", workdir, target)).lstrip("/")
    return whole.rstrip("/") + "/" if target.endswith(("/", "/.")) or target == "." else whole


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
