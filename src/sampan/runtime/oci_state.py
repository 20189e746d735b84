"""Containers of the `sampan-runtime` command: a directory each below its root (OCI runtime spec, "State")."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, field
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.errors import Conflict, InvalidParameter, NotFound
from sampan.linux import cgroups, process

OCI_VERSION = "1.2.0"
_FIFO = "start.fifo"


@dataclass(slots=True)
class Container:
    """What is kept of a container between two commands.

    Attributes:
        id: its name.
        bundle: absolute path of the bundle.
        pid: of its first process, and `pid_start_ticks`, since pids are used again.
        cgroups_path: its cgroup.
        created: RFC 3339.
        annotations: the bundle's.
    """

    id: str
    bundle: str
    pid: int
    pid_start_ticks: int
    cgroups_path: str
    created: str
    annotations: dict[str, str] = field(default_factory=dict)

    def alive(self) -> bool:
        """Whether the first process exists."""
        return process.start_time_ticks(self.pid) == self.pid_start_ticks


class Store:
    """The directory of all containers.

    Args:
        root: made when missing.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def directory(self, identifier: str) -> Path:
        """A container's own directory.

        Raises:
            InvalidParameter: an id that is no file name.
        """
        allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
        if not identifier or identifier in (".", "..") or not set(identifier) <= allowed:
            raise InvalidParameter(f"invalid container id {identifier!r}")
        return self.root / identifier

    def reserve(self, identifier: str) -> Path:
        """Make a new container's directory, with the fifo that `start` writes to.

        Raises:
            Conflict: the id is taken.
        """
        directory = self.directory(identifier)
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            directory.mkdir(mode=0o700)
        except FileExistsError:
            raise Conflict(f"container {identifier} already exists") from None
        os.mkfifo(directory / _FIFO, 0o600)
        return directory

    def fifo(self, identifier: str) -> Path:
        """The fifo whose reader is a container that has been created and not started."""
        return self.directory(identifier) / _FIFO

    def save(self, container: Container) -> None:
        """Write a container's record, whole or not at all."""
        path = self.directory(container.id) / "container.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(container)))
        temporary.rename(path)

    def load(self, identifier: str) -> Container:
        """A container's record.

        Raises:
            NotFound: there is no such container.
        """
        try:
            text = (self.directory(identifier) / "container.json").read_text()
        except FileNotFoundError:
            raise NotFound(f"container {identifier} does not exist") from None
        return Container(**json.loads(text))

    def all(self) -> list[Container]:
        """Every container, by id."""
        found = []
        for directory in sorted(self.root.iterdir()) if self.root.is_dir() else []:
            try:
                found.append(self.load(directory.name))
            except NotFound:
                continue  # being created just now
        return found

    def remove(self, identifier: str) -> None:
        """Remove a container's directory."""
        directory = self.directory(identifier)
        for name in (_FIFO, "container.json", "container.tmp"):
            (directory / name).unlink(missing_ok=True)
        directory.rmdir()

    def status(self, container: Container) -> str:
        """`created`, `running`, `paused` or `stopped`."""
        if not container.alive():
            return "stopped"
        if self.fifo(container.id).exists():
            return "created"
        manager = cgroups.manager_for(container.cgroups_path)
        for path, frozen in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
            for directory in set(manager.paths().values()):
                try:
                    if Path(directory, path).read_text().strip() == frozen:
                        return "paused"
                except OSError:
                    continue  # a file of the other cgroup version, or a cgroup that has gone
        return "running"

    def state(self, container: Container, status: str = "") -> dict[str, object]:
        """The state as the spec wants it printed; `status` when it is already known."""
        status = status or self.status(container)
        state: dict[str, object] = {
            "ociVersion": OCI_VERSION,
            "id": container.id,
            "status": status,
            "pid": container.pid if status != "stopped" else 0,
            "bundle": container.bundle,
            "annotations": container.annotations,
        }
        return state
