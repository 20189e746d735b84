"""What the drivers that keep directories have in common: staging, layer records, trash, repair.

<home>/layers/<hex of chain id>/layer.json   and the driver's own directory beside it
<home>/containers/<id>/container.json, and project if its size is limited
<home>/stage/…      layers being unpacked
<home>/trash/…      what is to be deleted
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from sampan.dataclasses import dataclass
from sampan.errors import Conflict, InvalidParameter
from sampan.linux import quota, syscalls, trees
from sampan.oci.digest import check_digest, hex_of
from sampan.oci.quantities import parse_size
from sampan.storage.errors import NoSuchLayer, ParentNeeded
from sampan.storage.limits import Limits
from sampan.storage.tar_reader import Readable
from sampan.storage.unpack_process import Apart

_log = logging.getLogger(__name__)

PROJECT = "project"  # the file with the number of a container's project quota, if it has one


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """What is known of a layer beside its files."""

    parent: str | None
    size: int
    link: str = ""


class Prepared:
    """A staged layer; see `PreparedLayer` and `Snapshot` in `sampan.storage.driver`."""

    def __init__(self, driver: DirectoryDriver, stage: Path, parent: str | None, size: int) -> None:
        self.size = size
        self._driver = driver
        self._stage: Path | None = stage
        self._parent = parent

    def write_tar(self, out: BinaryIO) -> None:
        if self._stage is None:
            raise ValueError("the layer was committed or discarded before")
        self._driver.write_snapshot(self._stage, self._parent, out)

    def stand_on(self, parent: str | None) -> None:
        self._parent = parent

    def commit(self, layer_id: str) -> None:
        if self._stage is None:
            raise ValueError("the layer was committed or discarded before")
        stage, self._stage = self._stage, None
        self._driver.adopt(stage, layer_id, self._parent, self.size)

    def discard(self) -> None:
        if self._stage is not None:
            stage, self._stage = self._stage, None
            self._driver.drop_stage(stage)

    def __enter__(self) -> Prepared:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()


class DirectoryDriver:
    """Base of the drivers whose layers and containers are directories."""

    name = ""
    files = ""  # the directory of a layer, or of a container, that holds its files
    unpacks_alone = False
    size_option = ""  # the daemon's option for what a container may hold that does not say
    default_size = 0

    def __init__(self, home: Path) -> None:
        home = self.home = home.resolve()  # as the mount table names it
        self._lock = threading.RLock()
        self._records: dict[str, LayerRecord] = {}
        self._staging: set[str] = set()
        for part in ("layers", "containers", "stage", "trash"):
            (home / part).mkdir(parents=True, exist_ok=True)
        home.chmod(0o710)
        for stale in (home / "stage").iterdir():
            self._to_trash(stale)
        for entry in (home / "layers").iterdir():
            with contextlib.suppress(OSError, ValueError, TypeError):
                record = LayerRecord(**json.loads((entry / "layer.json").read_bytes()))
                self._records["sha256:" + entry.name] = record

    # --- what a driver adds ---

    def _unpack(self, stage: Path, parent: str | None, stream: Readable, limits: Limits | None) -> int:
        raise NotImplementedError

    def _copy_changes(self, container_id: str, stage: Path) -> int:
        """Copy what a container changed into an empty stage; the size of it in bytes."""
        raise NotImplementedError

    def write_snapshot(self, stage: Path, parent: str | None, out: BinaryIO) -> None:
        """Write what `_copy_changes` staged as an archive."""
        raise NotImplementedError

    def _committed(self, layer_id: str) -> str:
        """Called with the lock held before a layer gets its name; returns its `link`."""
        return ""

    def unmount(self, container_id: str) -> None:
        """Undo one `mount`."""

    def _force_unmount(self, container_id: str) -> None:
        """Unmount however often it was mounted."""

    def configure(self, options: Sequence[str]) -> None:
        for option in options:
            key, _, value = option.partition("=")
            if not self.size_option or key != self.size_option:
                raise InvalidParameter(f"storage-opt: {self.name} has no option {key!r}")
            try:
                self.default_size = parse_size(value)
            except ValueError as error:
                raise InvalidParameter(f"storage-opt {key}: {error}") from None
            problem = quota.obstacle(self.home) if self.default_size else ""
            if problem:
                raise InvalidParameter(f"storage-opt {key}: {self.home} cannot be limited: {problem}")

    def _container_size(self, container_id: str, parent: str | None) -> int:
        raise NotImplementedError

    def _graph_data(self, container_id: str, parent: str | None) -> dict[str, str]:
        return {}

    # --- layers ---

    def layer_path(self, layer_id: str) -> Path:
        """The directory of a layer, which need not exist."""
        return self.home / "layers" / hex_of(check_digest(layer_id, "layer id"))

    def _record(self, layer_id: str) -> LayerRecord:
        record = self._records.get(layer_id)
        if record is None:
            raise NoSuchLayer(f"no such layer: {layer_id}")
        return record

    def prepare_layer(self, parent: str | None, stream: Readable, limits: Limits | None = None) -> Prepared:
        if parent is not None:
            self._record(parent)
        return self._stage(parent, lambda stage: self._unpack(stage, parent, stream, limits))

    def prepare_ahead(self, stream: Readable | Apart) -> Prepared:
        raise ParentNeeded(f"{self.name} unpacks a layer into a copy of those below it")

    def snapshot(self, container_id: str) -> Prepared:
        parent = self.container_parent(container_id)
        return self._stage(parent, lambda stage: self._copy_changes(container_id, stage))

    def _stage(self, parent: str | None, fill: Callable[[Path], int]) -> Prepared:
        with self._lock:
            stage = Path(tempfile.mkdtemp(dir=self.home / "stage"))
            self._staging.add(stage.name)
        try:
            size = fill(stage)
        except BaseException:
            self.drop_stage(stage)
            raise
        return Prepared(self, stage, parent, size)

    def drop_stage(self, stage: Path) -> None:
        """Delete a stage that nobody wants any more."""
        self._delete(stage)
        self._staging.discard(stage.name)

    def apply_layer(
        self,
        layer_id: str,
        parent: str | None,
        stream: Readable,
        verify: Callable[[], None] | None = None,
        limits: Limits | None = None,
    ) -> int:
        with self.prepare_layer(parent, stream, limits) as prepared:
            if verify is not None:
                verify()
            prepared.commit(layer_id)
        return prepared.size

    def adopt(self, stage: Path, layer_id: str, parent: str | None, size: int) -> None:
        """Give a staged layer its name, or drop it when the store has the layer."""
        with self._lock:
            final = self.layer_path(layer_id)
            if layer_id not in self._records:
                if parent is not None:
                    self._record(parent)
                record = LayerRecord(parent, size, self._committed(layer_id))
                (stage / "layer.json").write_text(json.dumps(asdict(record)))
                stage.chmod(0o700)
                if final.exists():  # without a readable record: a crash left it
                    self._to_trash(final)
                stage.rename(final)
                self._staging.discard(stage.name)
                self._records[layer_id] = record
                return
        self.drop_stage(stage)

    def has_layer(self, layer_id: str) -> bool:
        return layer_id in self._records

    def layers(self) -> set[str]:
        with self._lock:
            return set(self._records)

    def layer_size(self, layer_id: str) -> int:
        return self._record(layer_id).size

    def layer_parent(self, layer_id: str) -> str | None:
        return self._record(layer_id).parent

    def chain(self, layer_id: str | None) -> list[str]:
        """The layer and all below it, topmost first."""
        found = []
        while layer_id is not None:
            found.append(layer_id)
            layer_id = self._record(layer_id).parent
        return found

    def remove_layer(self, layer_id: str) -> None:
        with self._lock:
            if layer_id not in self._records:
                return
            if any(record.parent == layer_id for record in self._records.values()):
                raise Conflict(f"layer {layer_id} has layers on top of it")
            if layer_id in self.used_layers():
                raise Conflict(f"layer {layer_id} is in use by a container")
            self.forget_layer(layer_id)

    def forget_layer(self, layer_id: str) -> None:
        with self._lock:
            if self._records.pop(layer_id, None) is not None:
                self._to_trash(self.layer_path(layer_id))

    # --- containers ---

    def container_path(self, container_id: str) -> Path:
        """The directory of a container, which need not exist."""
        return self.home / "containers" / container_id

    def used_layers(self) -> set[str]:
        found = set()
        for entry in (self.home / "containers").iterdir():
            with contextlib.suppress(OSError, ValueError):
                parent = json.loads((entry / "container.json").read_bytes())["parent"]
                if parent is not None:
                    found.add(parent)
        return found

    def container_parent(self, container_id: str) -> str | None:
        """The layer that a container stands on.

        Raises:
            NoSuchLayer: the container has no file system here.
        """
        try:
            data = (self.container_path(container_id) / "container.json").read_bytes()
        except FileNotFoundError:
            raise NoSuchLayer(
                f"container {container_id} has no file system in {self.name}: it was made with another "
                "--storage-driver, or its files are gone"
            ) from None
        parent: str | None = json.loads(data)["parent"]
        return parent

    def container_size(self, container_id: str) -> int:
        try:
            parent = self.container_parent(container_id)
        except NoSuchLayer:
            return 0
        return self._container_size(container_id, parent)

    def graph_data(self, container_id: str) -> dict[str, str]:
        try:
            parent = self.container_parent(container_id)
        except NoSuchLayer:
            return {}
        return self._graph_data(container_id, parent)

    def create_container(
        self, container_id: str, parent_layer: str | None, size_bytes: int | None = None
    ) -> None:
        path = self.container_path(container_id)
        with self._lock:  # against the removal of the layer
            if parent_layer is not None:
                self._record(parent_layer)
            try:
                path.mkdir(mode=0o710)
            except FileExistsError:
                raise Conflict(f"container {container_id} has a file system already") from None
            try:
                (path / "container.json").write_text(json.dumps({"parent": parent_layer}))
            except OSError:
                self._to_trash(path)
                raise
        try:
            self._fill_container(path, parent_layer, self.default_size if size_bytes is None else size_bytes)
        except BaseException:
            self._to_trash(path)
            raise

    def _fill_container(self, path: Path, parent_layer: str | None, size_bytes: int) -> None:
        raise NotImplementedError

    def _limit(self, directories: list[Path], size_bytes: int) -> None:
        """Let empty directories of a new container, together, hold no more than this."""
        problem = quota.obstacle(self.home)
        if problem:
            raise InvalidParameter(f"--storage-opt size: {self.name} cannot limit {self.home}: {problem}")
        quota.limit(directories, size_bytes, directories[0].parent / PROJECT)

    def remove_container(self, container_id: str) -> None:
        path = self.container_path(container_id)
        self._force_unmount(container_id)
        if path.exists():
            self._to_trash(path)

    def repair(self, containers: set[str]) -> None:
        for path in self.stray(containers):
            self.remove_stray(path)

    # --- looking for damage ---

    def damaged_layers(self) -> dict[str, str]:
        found = {}
        for layer_id, record in list(self._records.items()):
            problem = self._layer_problem(layer_id, record)
            if problem and self._records.get(layer_id) is record:
                found[layer_id] = problem
        return found

    def _layer_problem(self, layer_id: str, record: LayerRecord) -> str:
        path = self.layer_path(layer_id)
        if not path.is_dir():
            return "its directory is gone"
        try:
            on_disk = LayerRecord(**json.loads((path / "layer.json").read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            return f"its record layer.json cannot be read: {error}"
        if on_disk != record:
            return "its record layer.json is another one"
        if record.parent is not None and record.parent not in self._records:
            return f"the layer below it, {record.parent}, is gone"
        return "" if (path / self.files).is_dir() else "its files are gone"

    def damaged_container(self, container_id: str) -> str:
        path = self.container_path(container_id)
        try:
            parent = self.container_parent(container_id)
        except (NoSuchLayer, OSError, ValueError, KeyError):
            return "its file system is gone"
        if not (path / self.files).is_dir():
            return "its files are gone"
        return f"its layer {parent} is gone" if parent is not None and parent not in self._records else ""

    def write_layer(self, layer_id: str, out: BinaryIO) -> None:
        self.write_snapshot(self.layer_path(layer_id), self._record(layer_id).parent, out)

    def stray(self, containers: set[str]) -> list[Path]:
        with self._lock:
            found = [path for path in (self.home / "stage").iterdir() if path.name not in self._staging]
            layers = {known.partition(":")[2] for known in self._records}
            found += [path for path in (self.home / "layers").iterdir() if path.name not in layers]
        found += [path for path in (self.home / "containers").iterdir() if path.name not in containers]
        return found

    def remove_stray(self, path: Path) -> None:
        if path.parent == self.home / "containers":
            self.remove_container(path.name)
        elif path.parent.parent == self.home:
            with self._lock:
                if path.parent.name == "layers" and f"sha256:{path.name}" in self._records:
                    return  # unpacked meanwhile
                self._to_trash(path)

    # --- trash, disk ---

    def _to_trash(self, path: Path) -> None:
        target = self.home / "trash" / secrets.token_hex(8)  # by itself, as a purge may come between
        with contextlib.suppress(FileNotFoundError):
            path.rename(target)

    def purge_trash(self) -> None:
        """Delete what was thrown away; what resists, an immutable file say, keeps nothing else from going."""
        for entry in list((self.home / "trash").iterdir()):
            try:
                self._delete(entry)
            except OSError as error:
                _log.error("%s cannot be deleted: %s", entry, error)

    def _delete(self, path: Path) -> None:
        """Delete a layer's, a container's or a stage's directory, and the limit on it."""
        quota.release_recorded(self.home, path / PROJECT)
        remove_tree(path)

    def sync(self) -> None:
        fd = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY)
        try:
            syscalls.syncfs(fd)
        finally:
            os.close(fd)


def remove_tree(path: Path) -> None:
    """Delete a directory and all below it, or a file, never through a link; what is gone is no error."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
        return
    trees.remove(path)
