"""Where things are tried: the data root's file system, in a directory that is gone afterwards."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from types import TracebackType

from sampan.doctor.model import FAILS, Outcome
from sampan.errors import SampanError

DEFAULT_ROOT = "/var/lib/sampan"
_PREFIX = ".sampan-doctor-"
_OURS = re.compile(rf"{re.escape(_PREFIX)}(\d+)-\w+")


def chosen_root(given: str) -> tuple[Path, list[Outcome]]:
    """The data root that the daemon would take, and what is wrong with its configuration."""
    if given:
        return Path(given).absolute(), []
    from sampan.daemon.settings import settle

    try:
        return settle({}, os.geteuid() != 0).engine.data_root, []
    except (SampanError, OSError) as error:
        said = error.message if isinstance(error, SampanError) else str(error)
        outcome = Outcome(
            "daemon.json", FAILS, os.geteuid() == 0, said, "the daemon does not start",
            "put it right; `sampand --validate` checks it",
        )  # fmt: skip
        return Path(DEFAULT_ROOT), [outcome]


class Place:
    """As a context: a directory of our own in `root`, or in what of it exists already.

    Attributes:
        root: the data root, which need not exist.
        near: the deepest directory of its path that does.
        directory: ours in there, or None where none may be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.near = root
        while not self.near.is_dir():
            self.near = self.near.parent
        self.directory: Path | None = None
        self.refusal = ""

    def __enter__(self) -> Place:
        _sweep(self.near)
        try:
            made = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=self.near)
        except OSError as error:
            self.refusal = error.strerror or str(error)
        else:
            self.directory = Path(made)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def make(self, name: str) -> Path:
        """A new directory in ours.

        Raises:
            OSError: it cannot be made.
        """
        if self.directory is None:
            raise OSError(30, f"{self.near} cannot be written: {self.refusal}")
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))


def dead(pid: int) -> bool:
    """Whether no process has this id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _sweep(directory: Path) -> None:
    """Take away what a doctor left that was killed."""
    try:
        entries = list(os.scandir(directory))
    except OSError:
        return  # it may be entered but not listed
    for entry in entries:
        found = _OURS.fullmatch(entry.name)
        if not (found and entry.is_dir(follow_symlinks=False) and dead(int(found[1]))):
            continue
        if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
            shutil.rmtree(entry.path, ignore_errors=True)
