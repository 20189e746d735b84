"""The images of this engine: what the rest of it calls."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from sampan.database import Database
from sampan.errors import InvalidParameter
from sampan.images.check import Check, Counts, Finding
from sampan.images.committing import Commit, adopt_step, commit_image, find_step
from sampan.images.downloads import Cancellation, Downloads
from sampan.images.errors import AmbiguousImage, NoSuchImage
from sampan.images.image import HistoryItem, Image, Loaded, check_platform
from sampan.images.load import load
from sampan.images.lookup import look_up
from sampan.images.records import ImageRecords
from sampan.images.removal import Lines, Removal, Users
from sampan.images.repair import repair
from sampan.oci.image import Descriptor, Platform
from sampan.oci.platforms import satisfies
from sampan.oci.reference import Reference, parse
from sampan.registry import COMPRESSIONS, Credentials, Registries
from sampan.storage import Driver, Snapshot
from sampan.storage.tar_reader import Readable

_ID = re.compile(r"(?:sha256:)?([0-9a-f]{1,64})")
_SEEDED = "builtin image added"

# The class below has a method called list, which would hide the type from its own annotations.
Names = list[str]
Images = list[Image]
References = list[Reference]
History = list[HistoryItem]
Found = list[tuple[Image, Reference | None]]
Arrivals = list[Loaded]
Tagged = list[tuple[Image, Reference]]
LookedUp = tuple[Descriptor, list[Platform]]
OnEvent = Callable[[str, str, dict[str, str]], None]


def _silent(_message: dict[str, Any]) -> None:
    pass


class ImageService:
    """Images by name and id. Every call may come from any thread.

    Args:
        root: the data root; blobs are kept in `content` beneath it.
        driver: where layers are unpacked.
        database: the daemon's database; the tables here are `image…`.
        on_event: called with (action, actor id, attributes) for tag, untag, delete, load, import, save, …
        registries: where pulls and pushes go.
    """

    def __init__(
        self,
        root: Path,
        driver: Driver,
        database: Database,
        on_event: OnEvent | None = None,
        registries: Registries | None = None,
    ) -> None:
        self.registries = registries or Registries()
        self._records = ImageRecords(root, driver, database)
        self._checking = threading.Lock()
        self._downloads = Downloads(
            self._records.content, lambda: self.registries.config.max_concurrent_downloads
        )
        repair(self._records)
        self._on_event = on_event

    @property
    def lock(self) -> AbstractContextManager[bool]:
        """Nothing is removed while a thread has it: what it finds meanwhile, it can say that it needs."""
        return self._records.content.lock

    # --- finding ---

    def resolve(self, reference: str, platform: Platform | None = None) -> Image:
        """The image with this name, id, or beginning of an id.

        Args:
            platform: what the image must be for, when that matters.

        Raises:
            InvalidReference: the text cannot name an image.
            NoSuchImage: none has this name, or the one that has it is for another platform.
            AmbiguousImage: several ids begin like this.
        """
        image = self._resolve(reference)[0]
        if platform is not None:
            check_platform(reference, image.platform, platform)
        return image

    def _resolve(self, text: str) -> tuple[Image, Reference | None]:
        """The image, and its name when it was found by that."""
        match = _ID.fullmatch(text)
        complete = match is not None and len(match[1]) == 64
        if match is not None and (complete or text.startswith("sha256:")):
            return self._by_prefix(match[1], text), None
        name = parse(text).with_default_tag()
        for wanted in (name, name.with_digest(name.digest) if name.digest else name):
            image_id = self._records.named(wanted)
            image = self._records.get(image_id) if image_id else None
            if image is not None:
                return image, wanted
        if match is not None:
            return self._by_prefix(match[1], name.familiar), None
        raise NoSuchImage(f"No such image: {name.familiar}")

    def _by_prefix(self, digits: str, shown: str) -> Image:
        found = self._records.ids_with_prefix(digits)
        if len(found) > 1:
            raise AmbiguousImage(f"image id {digits!r} is ambiguous: {len(found)} images begin with it")
        image = self._records.get(found[0]) if found else None
        if image is None:
            raise NoSuchImage(f"No such image: {shown}")
        return image

    def list(self) -> Images:
        """All images, the newest first."""
        return self._records.all()

    def history(self, reference: str) -> History:
        """How the image came about, its last step first; steps of parents that are here carry their ids.

        Raises:
            NoSuchImage: there is none.
        """
        return self.history_of(self.resolve(reference))

    def history_of(self, image: Image) -> History:
        """As `history`, of an image at hand."""
        sizes = iter([self._records.layer_size(layer) for layer in image.document.chain_ids])
        items = [
            HistoryItem(
                id="<missing>",
                created=step.created,
                created_by=step.created_by,
                comment=step.comment,
                size_bytes=0 if step.empty_layer else next(sizes, 0),
            )
            for step in image.document.history
        ][::-1]
        known: Image | None = image
        for index, item in enumerate(items):
            if known is None:
                break
            items[index] = replace(item, id=known.id, tags=known.repo_tags)
            known = self._records.get(known.parent) if known.parent else None
        return items

    def layer_size(self, layer: str) -> int:
        """The size of a layer's files in bytes; 0 for one that the driver has lost."""
        return self._records.layer_size(layer)

    def disk_bytes(self) -> int:
        """The size of all layers' files in bytes, each layer counted once."""
        driver = self._records.driver
        return sum(self._records.layer_size(layer) for layer in driver.layers())

    def manifest_descriptor(self, image: Image) -> Descriptor:
        """The manifest that belongs to an image.

        Raises:
            BrokenContent, InvalidImage: it is lost, or no manifest.
        """
        return self._records.manifest_descriptor(image)

    def content_size(self, image: Image) -> int:
        """The sum of the sizes of an image's blobs in bytes."""
        return self._records.content_size(image)

    def children(self, image_id: str) -> Names:
        """The ids of the images that were made from this one here."""
        return self._records.children(image_id)

    # --- naming and removing ---

    def tag(self, source: str, target: str) -> None:
        """Give the image `source` the name `target`, taking it from whoever had it.

        Raises:
            NoSuchImage: there is no such source.
            InvalidReference: the target cannot be a name.
        """
        name = _tag_name(target, "refusing to create a tag with a digest reference")
        with self._records.content.lock:  # against the image's removal
            image = self.resolve(source)
            self._records.name(name, image.id)
        self._notify("tag", image, name.familiar)

    def check_here(self, image_id: str) -> None:
        """For who has just said that an image is needed: from here on nobody removes it.

        Raises:
            NoSuchImage: somebody has.
        """
        with self._records.content.lock:
            if image_id not in self._records:
                raise NoSuchImage(f"No such image: {image_id}")

    def remove(
        self,
        reference: str,
        force: bool,
        no_prune: bool,
        users: Users,
        platforms: Sequence[Platform] = (),
    ) -> Lines:
        """Remove a name or an image.

        Args:
            platforms: what the image must be for, when that matters; it goes when it is for one of them.
            force: also when stopped containers or several names stand in the way.
            no_prune: keep parents that have no name.
            users: the containers of an image id: (container id, whether it runs).

        Returns:
            what was done, as ("Untagged" or "Deleted", text).

        Raises:
            NoSuchImage: there is none.
            ImageInUse: something stands in the way; the message says what, and whether force would help.
        """
        with self._records.content.lock:
            image, name = self._resolve(reference)
            if platforms and not any(satisfies(image.platform, platform) for platform in platforms):
                check_platform(reference, image.platform, platforms[0])
            removal = Removal(self._records, users, self._notify, force, not no_prune)
            if name is None:
                removal.by_id(image)
            else:
                removal.by_name(image, name, reference)
            return removal.lines

    def check(
        self, users: Users, containers: set[str], repair: bool, tell: Callable[[Finding], None]
    ) -> Counts:
        """Look for what is broken in the store, and set it right; see `sampan.images.check`.

        Args:
            users: the containers of an image id: (container id, whether it runs).
            containers: the ids of all containers.
            tell: receives what is found, as it is known.

        Returns:
            how much was looked at.
        """
        with self._checking:
            return Check(self._records, users, containers, repair, tell).run()

    def collect_garbage(self) -> Names:
        """Delete blobs and layers that no image, container or running load needs; the layers' ids."""
        return self._records.collect_all()

    # --- registries ---

    def look_up(self, reference: str, credentials: Credentials) -> LookedUp:
        """What a registry has under a name: descriptor and platforms; nothing is pulled.

        Raises:
            InvalidReference: the text names no image.
            NotInRegistry, RegistryError: the registry has none, or cannot be asked.
        """
        return look_up(self.registries, parse(reference).with_default_tag(), credentials)

    def push(
        self,
        reference: str,
        credentials: Credentials,
        progress: Callable[[dict[str, Any]], None] = _silent,
        platform: Platform | None = None,
        compression: str = "",
    ) -> None:
        """Push an image to the registry that its name tells.

        Args:
            reference: a name with a tag, or without one for all tags of the repository.
            progress: receives Docker's messages.
            platform: what the image must be for, when that matters.
            compression: "gzip" or "zstd" for layers that are not compressed yet; the daemon's own when empty.

        Raises:
            InvalidParameter: the name or the compression cannot be.
            NoSuchImage: there is none of this name, or it is for another platform.
            RegistryError: the registry does not take it, or cannot be reached.
        """
        from sampan.images.push import Push  # the idle daemon does without

        name = parse(reference)
        if name.digest:
            raise InvalidParameter("cannot push a digest reference")
        compression = compression or self.registries.config.push_compression
        if compression not in COMPRESSIONS:
            raise InvalidParameter(f"compression {compression!r} is none of {', '.join(COMPRESSIONS)}")
        progress({"status": f"The push refers to repository [{name.name}]"})
        chosen = self._to_push(name)
        if platform is not None:
            for image, tag in chosen:
                check_platform(tag.familiar, image.platform, platform)
        repository = self.registries.repository(name, credentials, ("pull", "push"))
        push = Push(self._records, self._records.sources, repository, compression, progress)
        for image, tag in chosen:
            push.image(image, tag)
            if self._on_event is not None:
                self._on_event("push", tag.familiar, {"name": tag.familiar_name})

    def _to_push(self, name: Reference) -> Tagged:
        """The images of a repository with the tags to push."""
        tagged = [
            (image, known)
            for image in self.list()
            for known in image.names
            if known.name == name.name and not known.digest
        ]
        if not tagged:
            raise NoSuchImage(f"An image does not exist locally with the tag: {name.familiar_name}")
        chosen = [(image, known) for image, known in tagged if name.tag in (None, known.tag)]
        if not chosen:
            raise NoSuchImage(f"tag does not exist: {name.familiar}")
        return sorted(chosen, key=lambda pair: pair[1].tag or "")

    def pull(
        self,
        reference: Reference,
        credentials: Credentials | None = None,
        platform: Platform | None = None,
        progress: Callable[[dict[str, Any]], None] = _silent,
        cancellation: Cancellation | None = None,
    ) -> None:
        """Bring in what a registry has under a tag or digest, or with neither under every tag.

        Args:
            platform: what to take of an index; this machine's when not given.
            progress: receives Docker's messages.
            cancellation: set by the caller when nobody waits any more.

        Raises:
            NotFound, RegistryError, DigestMismatch, InvalidImage, InvalidLayer, NoSpace, PullCancelled: see
                `sampan.images.pull.Pull.run`.
        """
        from sampan.images.pull import Pull  # the idle daemon does without

        source = self.registries.repository(reference, credentials, ("pull",))
        cancellation = cancellation or Cancellation()
        pull = Pull(self._records, self._downloads, source, platform, progress, cancellation)
        image_id = pull.all_of(reference)
        image = self._records.get(image_id) if image_id else None
        if image is not None and platform is not None:
            try:
                check_platform(reference.familiar, image.platform, platform)
            except NoSuchImage as error:  # the registry has but one platform, which somebody may want
                progress({"status": f"WARNING: {error.message}"})
        if self._on_event is not None:
            labels = (image.config.labels or {}) if image is not None else {}
            self._on_event("pull", reference.familiar, {**labels, "name": reference.familiar_name})

    # --- archives ---

    def load(
        self,
        stream: Readable,
        progress: Callable[[dict[str, Any]], None] = _silent,
        platform: Platform | None = None,
    ) -> Arrivals:
        """Bring in the images of an archive (docker-archive or OCI layout, compressed or not).

        Args:
            stream: anything with `read`; it is read once and need not seek.
            progress: receives Docker's messages, such as {"stream": "Loaded image: busybox:latest\\n"}.
            platform: what to take where a name stands for several platforms; this machine's when not given.

        Raises:
            InvalidArchive, InvalidImage, InvalidLayer, DigestMismatch: nothing of it stays.
        """
        loaded = load(self._records, stream, progress, platform)
        for item in loaded:
            image = self._records.get(item.image_id)
            if image is not None:
                self._notify("load", image, image.id)
        return loaded

    def save(self, names: Names, out: BinaryIO, platform: Platform | None = None) -> None:
        """Write images as one archive.

        Args:
            names: names and ids. A repository without a tag stands for all its tags, an id for no name.
            platform: what they must be for, when that matters.

        Raises:
            NoSuchImage: one is missing, or for another platform; nothing has been written then.
        """
        from sampan.images.save import save  # the idle daemon does without

        images: dict[str, tuple[Image, References]] = {}
        for text in names:
            for image, name in self._to_save(text):
                if platform is not None:
                    check_platform(text, image.platform, platform)
                wanted = images.setdefault(image.id, (image, []))[1]
                if name is not None and not name.digest and name not in wanted:
                    wanted.append(name)
        save(self._records, list(images.values()), out)
        for image, _ in images.values():
            self._notify("save", image, image.id)

    def _to_save(self, text: str) -> Found:
        if not text.startswith("sha256:") and not re.fullmatch(r"[0-9a-f]{64}", text):
            name = parse(text)
            if not name.tag and not name.digest:
                tagged: Found = [
                    (image, known)
                    for image in self.list()
                    for known in image.names
                    if known.name == name.name and not known.digest
                ]
                if tagged:
                    return tagged
        return [self._resolve(text)]

    def import_(
        self,
        stream: Readable,
        repository_tag: str | None = None,
        changes: Names | None = None,
        message: str = "",
        platform: str = "",
    ) -> str:
        """Make an image of a root file system's archive, compressed or not.

        Args:
            repository_tag: the name that it gets.
            changes: Dockerfile instructions (CMD, ENV, …) for its config.
            message: the comment in its history.
            platform: when it is not this machine's, `linux/arm64` or the like.

        Returns:
            the image's id.
        """
        from sampan.images.importing import import_image  # and does without the language of Dockerfiles

        name = _tag_name(repository_tag, "cannot import digest reference") if repository_tag else None
        image_id = import_image(self._records, stream, name, changes or [], message, platform)
        if self._on_event is not None:
            attributes = {"name": name.familiar if name else image_id}
            self._on_event("import", image_id, attributes)
        return image_id

    def check_name(self, text: str) -> Reference:
        """The name that a new image is to get, with its tag.

        Raises:
            InvalidReference, InvalidParameter: it cannot be one.
        """
        return _tag_name(text, "refusing to create a tag with a digest reference")

    def commit(
        self,
        snapshot: Snapshot | None,
        parent_id: str,
        commit: Commit,
        name: Reference | None = None,
        made: Callable[[str], None] | None = None,
    ) -> str:
        """Make an image of what a container has changed; see `sampan.images.committing`.

        Args:
            made: is told of the image before anybody else can remove it.

        Returns:
            the image's id.
        """
        image_id = commit_image(self._records, snapshot, parent_id, commit, name, made)
        if name is not None:
            self._notify("tag", self.resolve(image_id), name.familiar)
        return image_id

    def find_step(self, parent_id: str, commit: Commit, sources: Names | None) -> str | None:
        """The image that this step on top of a parent would make, when there is one already.

        Args:
            parent_id: empty for a step that stands on nothing.
            sources: ids of the images whose steps alone count, wherever they were made; None for all here.
        """
        found = find_step(self._records, parent_id, commit)
        if sources is None:
            return found
        for source in sources:
            if found is not None and found in self._with_ancestors(source):
                return found
            adopted = adopt_step(self._records, source, parent_id, commit)
            if adopted is not None:
                return adopted
        return None

    def _with_ancestors(self, image_id: str) -> set[str]:
        found: set[str] = set()
        while image_id and image_id not in found:
            found.add(image_id)
            image = self._records.get(image_id)
            image_id = image.parent if image is not None else ""
        return found

    def scratch(self) -> AbstractContextManager[Path]:
        """A directory for a block of code, beside the images; a crash's are cleared at the next start."""
        return self._records.content.scratch()

    def add_builtin(self, archive: bytes) -> bool:
        """Load an archive into a store that was never used; a built-in image that was removed stays away.

        Returns:
            whether it was loaded.
        """
        database = self._records.database
        if database.execute("SELECT 1 FROM image_facts WHERE key = ?", (_SEEDED,)):
            return False
        empty = not self._records.ids()
        if empty:
            load(self._records, io.BytesIO(archive), _silent)
        database.execute("INSERT OR IGNORE INTO image_facts (key, value) VALUES (?, '')", (_SEEDED,))
        return empty

    def _notify(self, action: str, image: Image, name: str) -> None:
        if self._on_event is not None:
            self._on_event(action, image.id, {**(image.config.labels or {}), "name": name})


def _tag_name(text: str, refusal: str) -> Reference:
    name = parse(text)
    if name.digest:
        raise InvalidParameter(refusal)
    if name.familiar_name == "sha256":
        raise InvalidParameter("refusing to create an ambiguous tag using digest algorithm as name")
    return name.with_default_tag()
