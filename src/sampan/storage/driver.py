"""What a storage driver is: layers in, root file systems of containers out.

Layers are known by their chain id (`sha256:…`), which names a layer together with everything below it. Every
driver keeps these promises, and one contract suite (`tests/integration/storage`) holds each to them:

- a layer appears whole or not at all, and twice the same layer is no error;
- a container's file system is its own, whatever other containers of the image do;
- removing renames into a trash directory, so that the caller does not wait for it; `purge_trash` deletes;
- every call may come from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from sampan.dataclasses import dataclass
from sampan.storage.limits import Limits
from sampan.storage.tar_reader import Readable
from sampan.storage.unpack_process import Apart

MODIFIED, ADDED, DELETED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Change:
    """One difference of a container from its image; `kind` is `MODIFIED`, `ADDED` or `DELETED`."""

    path: str
    kind: int


class PreparedLayer(Protocol):
    """A layer that is unpacked and has no name yet. As a context it discards itself unless committed."""

    size: int

    def stand_on(self, parent: str | None) -> None:
        """Tell what lies below a layer of `prepare_ahead`, before `commit`."""

    def commit(self, layer_id: str) -> None:
        """Make it a layer of the store; when the layer is there already, this one is dropped."""

    def discard(self) -> None:
        """Forget it; no error after `commit`."""

    def __enter__(self) -> PreparedLayer: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Snapshot(PreparedLayer, Protocol):
    """What a container had changed at one moment, as a layer that has no name yet."""

    def write_tar(self, out: BinaryIO) -> None:
        """Write the layer as an archive, whiteouts included; only before `commit`."""


class Driver(Protocol):
    """Layers and the containers' file systems made from them."""

    name: str
    unpacks_alone: bool  # whether `prepare_ahead` is worth a try

    def configure(self, options: Sequence[str]) -> None:
        """Take the daemon's `--storage-opt KEY=VALUE`, before anything else.

        Raises:
            InvalidParameter: the driver has no such option, or cannot do it here.
        """

    def prepare_layer(
        self, parent: str | None, stream: Readable, limits: Limits | None = None
    ) -> PreparedLayer:
        """Unpack an uncompressed tar stream, to its last byte, as a layer on top of `parent`.

        Raises:
            NoSuchLayer: `parent` is missing.
            InvalidLayer: the archive is broken, hostile or too large; nothing is left.
        """

    def prepare_ahead(self, stream: Readable | Apart) -> PreparedLayer:
        """`prepare_layer` for a layer whose parent is not known yet: `stand_on` tells it later.

        Args:
            stream: the plain archive, or a blob, plain or not, that another process unpacks.

        Raises:
            ParentNeeded: the layer cannot be unpacked without; nothing is left.
            InvalidLayer: as `prepare_layer`.
        """

    def apply_layer(
        self,
        layer_id: str,
        parent: str | None,
        stream: Readable,
        verify: Callable[[], None] | None = None,
        limits: Limits | None = None,
    ) -> int:
        """`prepare_layer` and `commit` in one; `verify` may raise in between, once the stream is read.

        Returns:
            the size of the layer's files in bytes.
        """

    def has_layer(self, layer_id: str) -> bool:
        """Whether the layer is in the store."""

    def layers(self) -> set[str]:
        """The ids of all layers."""

    def layer_size(self, layer_id: str) -> int:
        """The size in bytes of the files that the layer itself holds."""

    def layer_parent(self, layer_id: str) -> str | None:
        """The layer below."""

    def remove_layer(self, layer_id: str) -> None:
        """Take a layer away that neither a layer nor a container stands on; no error when it is gone."""

    def forget_layer(self, layer_id: str) -> None:
        """Take away a layer whose files cannot be trusted, whatever stands on it; no error when it is gone.

        The caller has it unpacked again under the same id, or drops what needs it.
        """

    def used_layers(self) -> set[str]:
        """The topmost layers that containers stand on."""

    def create_container(
        self, container_id: str, parent_layer: str | None, size_bytes: int | None = None
    ) -> None:
        """Make a writable file system on top of a layer (None: on top of nothing).

        Args:
            size_bytes: the most that it may hold: with overlays what the container itself writes, else the
                image, too. 0 for no limit, None for the daemon's default.

        Raises:
            Conflict: the container has one already.
            InvalidParameter: the driver cannot limit it here, and why.
        """

    def container_parent(self, container_id: str) -> str | None:
        """The layer that a container stands on.

        Raises:
            NoSuchLayer: the container has no file system here.
        """

    def mount(self, container_id: str) -> str:
        """Make the container's file system visible and return its path; each call wants an `unmount`."""

    def unmount(self, container_id: str) -> None:
        """Undo one `mount`; no error when it is not mounted."""

    def remove_container(self, container_id: str) -> None:
        """Take the file system away, mounted or not; no error when there is none."""

    def mount_layers_ro(self, layer_id: str) -> str:
        """A read-only view of the layer with all below it; wants an `unmount_layers_ro`."""

    def unmount_layers_ro(self, layer_id: str) -> None:
        """Undo one `mount_layers_ro`."""

    def changes(self, container_id: str) -> list[Change]:
        """How the container's files differ from its image's, sorted by path."""

    def diff_tar(self, container_id: str, out: BinaryIO) -> None:
        """Write what the container changed as a layer's archive, whiteouts included."""

    def snapshot(self, container_id: str) -> Snapshot:
        """Copy what the container has changed; later changes of its own do not matter any more.

        Files with names that mean something in a layer's archive (`.wh.…`) cannot be in one and are left out.

        A container that runs on meanwhile is no error: each file is as it was at some moment of the call.

        Raises:
            NoSuchLayer: the container has no file system here.
        """

    def container_size(self, container_id: str) -> int:
        """The bytes of the files that the container added or changed; 0 where it has no file system."""

    def mounted(self) -> set[str]:
        """The containers whose file system is mounted, as the kernel has it."""

    def repair(self, containers: set[str]) -> None:
        """At start: drop what a crash left, and the file systems of containers not in the set."""

    def damaged_layers(self) -> dict[str, str]:
        """What is wrong on disk with layers that are known: by layer, in words."""

    def damaged_container(self, container_id: str) -> str:
        """What is wrong with a container's file system, in words; empty for nothing."""

    def write_layer(self, layer_id: str, out: BinaryIO) -> None:
        """Write a layer as an archive. It is the one that it came from if that was ours: see `tar_writer`."""

    def stray(self, containers: set[str]) -> list[Path]:
        """What lies in the driver's directories and belongs to nothing known: layers, stages, containers."""

    def remove_stray(self, path: Path) -> None:
        """Take one of these away."""

    def purge_trash(self) -> None:
        """Delete what was removed."""

    def sync(self) -> None:
        """Return once everything written so far is on disk."""

    def status(self) -> list[tuple[str, str]]:
        """What `info` tells of the driver."""

    def graph_data(self, container_id: str) -> dict[str, str]:
        """What inspect tells of the container's file system; nothing where it has none."""

    def layer_data(self, layer_id: str | None) -> dict[str, str]:
        """What inspect tells of where a layer lies; nothing for None."""
