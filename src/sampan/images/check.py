"""`system check`: what a crash, a bad disk or a hand in the data root broke, and how it is set right.

Every blob is hashed, every record held against blobs, layers and directories. What can be had again is: a
layer from its blob, a blob of our own making from its layer. What cannot is removed, record and all, unless
something uses it. The files of an unpacked layer are not compared with its blob.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from sampan.dataclasses import dataclass
from sampan.errors import SampanError
from sampan.images.records import ImageRecords
from sampan.images.removal import Users, short
from sampan.images.repair import unpack_again
from sampan.oci.image import DOCUMENT_LIMIT_BYTES, parse_image, parse_manifest
from sampan.storage.base import remove_tree

STALE_S = 3600.0  # what has lain in the ingest directory for so long is nobody's any more
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: database, blob, layer, image, container or leftover.
        subject: which one.
        problem: what is wrong with it.
        action: what was done about it, or why nothing was.
        repaired: whether it is right now.
    """

    kind: str
    subject: str
    problem: str
    action: str = ""
    repaired: bool = False


@dataclass(slots=True)
class Counts:
    """How much was looked at."""

    blobs: int = 0
    layers: int = 0
    images: int = 0
    containers: int = 0


Tell = Callable[[Finding], None]


class Check:
    """One walk through the store.

    Args:
        users: the containers of an image: (id, whether it runs).
        containers: the ids of all containers.
        repair: set right what can be.
        tell: receives each finding as it is known.
    """

    def __init__(
        self, records: ImageRecords, users: Users, containers: set[str], repair: bool, tell: Tell
    ) -> None:
        self._records = records
        self._users = users
        self._containers = containers
        self._repair = repair
        self._tell = tell
        self._bad: dict[str, str] = {}
        self._damaged: dict[str, str] = {}
        self.counts = Counts()

    def run(self) -> Counts:
        """Do it."""
        self._database()
        self._blobs()
        self._layers()
        for image_id in self._records.ids():
            self._image(image_id)
        self._orphans()
        for container_id in sorted(self._containers):
            self._container(container_id)
        self._leftovers()
        return self.counts

    def _found(self, kind: str, subject: str, problem: str, action: str = "", repaired: bool = False) -> None:
        self._tell(Finding(kind, subject, problem, action, repaired))

    # --- looking ---

    def _database(self) -> None:
        for (answer,) in self._records.database.execute("PRAGMA integrity_check"):
            if answer != "ok":
                self._found("database", str(self._records.database.path), answer, "restore it from a backup")

    def _blobs(self) -> None:
        for path in sorted(self._records.content.blobs.iterdir()):
            if not re.fullmatch(r"[0-9a-f]{64}", path.name):
                self._leftover(path, "it is no blob", lambda path=path: remove_tree(path))  # type: ignore[misc]
                continue
            digest = f"sha256:{path.name}"
            try:
                found = _digest(path)
            except FileNotFoundError:
                continue  # removed meanwhile
            except OSError as error:
                self._bad[digest] = f"it cannot be read: {error.strerror}"
                continue
            self.counts.blobs += 1
            if found != digest:
                self._bad[digest] = f"its bytes have the digest {found}"

    def _layers(self) -> None:
        self._damaged = self._records.driver.damaged_layers()
        self.counts.layers = len(self._records.driver.layers())

    def _image(self, image_id: str) -> None:
        """All that one image needs: documents, blobs and layers."""
        self.counts.images += 1
        layers = self._records.layer_blobs(image_id)
        broken = {name: self._blob_problem(name) for name, _ in layers}
        blobs = {name: problem for name, problem in broken.items() if problem}
        problem = self._document_problem(image_id)
        if problem:
            self._give_up(image_id, problem)
            return
        lost = {layer: self._layer_problem(layer) for _, layer in layers if self._layer_problem(layer)}
        for name in blobs:
            layer = next(layer for blob, layer in layers if blob == name)
            if layer not in lost and self._remake_blob(image_id, name, layer):
                continue
            self._give_up(image_id, f"its layer blob {name}: {blobs[name]}")
            return
        if lost:
            self._unpack(image_id, lost)

    def _blob_problem(self, digest: str) -> str:
        if digest in self._bad:
            return self._bad[digest]
        return "" if self._records.content.exists(digest) else "it is missing"

    def _layer_problem(self, layer: str) -> str:
        if layer in self._damaged:
            return self._damaged[layer]
        return "" if self._records.driver.has_layer(layer) else "it is missing"

    def _document_problem(self, image_id: str) -> str:
        rows = self._records.database.execute("SELECT manifest FROM images WHERE id = ?", (image_id,))
        if not rows:
            return ""  # removed meanwhile
        manifest: str = rows[0][0]
        for what, digest in (("config", image_id), ("manifest", manifest)):
            problem = self._blob_problem(digest)
            if problem:
                return f"its {what} {digest}: {problem}"
        try:
            document = parse_image(self._records.content.checked(image_id, DOCUMENT_LIMIT_BYTES))
            config = parse_manifest(self._records.content.checked(manifest, DOCUMENT_LIMIT_BYTES)).config
        except SampanError as error:
            return error.message
        chain = [layer for _, layer in self._records.layer_blobs(image_id)]
        if document.chain_ids != chain or config.digest != image_id:
            return "its record, its config and its manifest do not belong together"
        return ""

    # --- setting right ---

    def _names(self, image_id: str) -> str:
        return ", ".join(name.familiar for name in self._records.names(image_id)) or short(image_id)

    def _user(self, image_id: str) -> str:
        """Who keeps an image from being touched, in words."""
        for container_id, running in self._users(image_id):
            return f"{'running ' if running else ''}container {short(container_id)} uses it"
        if image_id in self._records.content.leased:
            return "somebody is working with it"
        return ""

    def _give_up(self, image_id: str, problem: str) -> None:
        """An image that nothing here can bring back."""
        names = self._names(image_id)
        user = self._user(image_id)
        if user:
            self._found("image", names, problem, f"left alone, as {user}: remove that, then check again")
        elif self._records.children(image_id):
            self._found("image", names, problem, "left alone, as other images were made from it")
        elif not self._repair:
            self._found("image", names, problem, "it can only be removed; then load or pull it again")
        else:
            self._records.drop(image_id)
            self._drop_bad()
            self._found("image", names, problem, "removed: load or pull it again", repaired=True)

    def _remake_blob(self, image_id: str, digest: str, layer: str) -> bool:
        """A plain blob that was written here comes out of its layer again, byte by byte."""
        problem = self._blob_problem(digest)
        if digest not in self._records.document(image_id).diff_ids:
            return False
        with self._records.content.writer() as writer:
            try:
                self._records.driver.write_layer(layer, cast("BinaryIO", writer))
            except (OSError, SampanError):
                return False
            if writer.digest != digest:
                return False
            if not self._repair:
                self._found("blob", digest, problem, "it can be made again from its layer")
                return True
            writer.commit()
        self._bad.pop(digest, None)
        self._found("blob", digest, problem, "made again from its layer", repaired=True)
        return True

    def _unpack(self, image_id: str, lost: dict[str, str]) -> None:
        subject = ", ".join(short(layer) for layer in lost)
        layer, problem = next(iter(lost.items()))
        text = f"{problem} (image {self._names(image_id)})"
        running = [container for container, runs in self._users(image_id) if runs]
        if running or f"layer:{layer}" in self._records.content.leased:
            user = f"running container {short(running[0])} uses it" if running else "somebody works with it"
            self._found("layer", subject, text, f"left alone, as {user}: stop that, then check again")
            return
        if not self._repair:
            self._found("layer", subject, text, "it can be unpacked again")
            return
        try:
            for one in lost:
                self._records.driver.forget_layer(one)
            unpack_again(self._records, image_id)
        except (SampanError, OSError) as error:
            self._give_up(image_id, f"{problem}, and its blobs cannot be unpacked: {error}")
            return
        for one in lost:
            self._damaged.pop(one, None)
        self._found("layer", subject, text, "unpacked again", repaired=True)

    def _orphans(self) -> None:
        """Blobs and layers that no image, no container and no running work needs."""
        driver = self._records.driver
        candidates = [*self._records.content.digests(), *(f"layer:{layer}" for layer in driver.layers())]
        for name in self._records.unused(candidates):
            kind = "layer" if name.startswith("layer:") else "blob"
            subject = name.removeprefix("layer:")
            problem = self._bad.pop(subject, "") or "nothing needs it"
            self._damaged.pop(subject, None)
            if self._repair:
                self._records.collect([name])
            self._found(
                kind, subject, problem, "removed" if self._repair else "it can be removed", self._repair
            )

    def _drop_bad(self) -> None:
        """Blobs that were known to be bad and went with their image."""
        for digest in list(self._bad):
            if not self._records.content.exists(digest):
                del self._bad[digest]

    def _container(self, container_id: str) -> None:
        self.counts.containers += 1
        problem = self._records.driver.damaged_container(container_id)
        if problem:
            self._found(
                "container", short(container_id), problem, "nothing here can bring it back: remove it"
            )

    def _leftovers(self) -> None:
        driver, content = self._records.driver, self._records.content
        for path in sorted(driver.stray(self._containers)):
            self._leftover(path, "it belongs to nothing", lambda path=path: driver.remove_stray(path))  # type: ignore[misc]
        for path in sorted(content.ingest.iterdir()):
            if _age_s(path) > STALE_S:
                self._leftover(path, "a transfer left it", lambda path=path: remove_tree(path))  # type: ignore[misc]
        if self._repair:
            driver.purge_trash()

    def _leftover(self, path: Path, problem: str, remove: Callable[[], None]) -> None:
        if self._repair:
            remove()
        self._found(
            "leftover", str(path), problem, "removed" if self._repair else "it can be removed", self._repair
        )


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return f"sha256:{digest.hexdigest()}"


def _age_s(path: Path) -> float:
    """How long nothing at a path, or directly below it, has been written."""
    try:
        below = list(path.iterdir()) if path.is_dir() and not path.is_symlink() else []
        return time.time() - max(one.lstat().st_mtime for one in (path, *below))
    except FileNotFoundError:
        return 0.0
