"""`docker rmi`: names go first, the image with its last one, and nothing that is in use unless forced."""

from __future__ import annotations

from collections.abc import Callable

from sampan.dataclasses import dataclass
from sampan.images.errors import ImageInUse
from sampan.images.image import Image
from sampan.images.records import ImageRecords
from sampan.oci.reference import Reference

Users = Callable[[str], list[tuple[str, bool]]]
Lines = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _Hindrance:
    reason: str
    hard: bool
    used: bool = False


def short(identifier: str) -> str:
    """The twelve digits by which ids are shown."""
    return identifier.removeprefix("sha256:")[:12]


class Removal:
    """One removal, its rules and what it has done so far.

    Args:
        users: the containers of an image, each with whether it runs.
        notify: told of each `untag` and `delete`.
    """

    def __init__(
        self,
        records: ImageRecords,
        users: Users,
        notify: Callable[[str, Image, str], None],
        force: bool,
        prune: bool,
    ) -> None:
        self._records = records
        self._users = users
        self._notify = notify
        self._force = force
        self._prune = prune
        self.lines: Lines = []

    def by_id(self, image: Image) -> None:
        """Remove an image that was named by its id."""
        if is_single(image.names):
            hindrance = self._hindrance(image.id, [], soft=not self._force)
            if hindrance is not None:
                raise self._conflict(image.id, hindrance)
            for name in image.names:
                self._untag(image, name)
        self._delete(image.id, self._force, quiet=False)

    def by_name(self, image: Image, name: Reference, asked: str) -> None:
        """Remove a name, and the image with its last one.

        Args:
            asked: the name as the user wrote it.
        """
        if not self._force and is_single(image.names):
            containers = self._users(image.id)
            if containers:
                raise ImageInUse(
                    f'conflict: unable to remove repository reference "{asked}" (must force) - container'
                    f" {short(containers[0][0])} is using its referenced image {short(image.id)}"
                )
        self._untag(image, name)
        left = [other for other in image.names if other != name]
        if not name.digest and not any(other.name == name.name and not other.digest for other in left):
            for other in [other for other in left if other.name == name.name]:
                self._untag(image, other)
                left.remove(other)
        if not left:
            self._delete(image.id, self._force, quiet=True)

    def _untag(self, image: Image, name: Reference) -> None:
        self._records.unname(name)
        self._notify("untag", image, image.id)
        self.lines.append(("Untagged", name.familiar))

    def _delete(self, image_id: str, force: bool, quiet: bool) -> None:
        image = self._records.get(image_id)
        if image is None:
            return
        hindrance = self._hindrance(image_id, image.names, soft=not force)
        if hindrance is not None:
            if quiet and (image.names or hindrance.used or self._records.children(image_id)):
                return
            raise self._conflict(image_id, hindrance)
        for name in image.names:
            self._untag(image, name)
        layers = self._records.drop(image_id)
        self._notify("delete", image, image.id)
        self.lines.append(("Deleted", image_id))
        self.lines += [("Deleted", layer) for layer in layers]
        if self._prune and image.parent:
            self._delete(image.parent, force=False, quiet=True)

    def _hindrance(self, image_id: str, names: list[Reference], soft: bool) -> _Hindrance | None:
        if self._records.children(image_id):
            return _Hindrance("image has dependent child images", hard=True)
        containers = self._users(image_id)
        for container_id, running in containers:
            if running:
                reason = f"image is being used by running container {short(container_id)}"
                return _Hindrance(reason, hard=True, used=True)
        if not soft:
            return None
        if names:
            return _Hindrance("image is referenced in multiple repositories", hard=False)
        for container_id, _ in containers:
            reason = f"image is being used by stopped container {short(container_id)}"
            return _Hindrance(reason, hard=False, used=True)
        return None

    @staticmethod
    def _conflict(image_id: str, hindrance: _Hindrance) -> ImageInUse:
        force = "cannot be forced" if hindrance.hard else "must be forced"
        return ImageInUse(f"conflict: unable to delete {short(image_id)} ({force}) - {hindrance.reason}")


def is_single(names: list[Reference]) -> bool:
    """Whether an image has at most one tag, and digests of that same repository at most."""
    if len(names) <= 1:
        return True
    tags = [name for name in names if not name.digest]
    if len(tags) > 1:
        return False
    repositories = {name.name for name in names if name.digest}
    return repositories == {(tags or names)[0].name}
