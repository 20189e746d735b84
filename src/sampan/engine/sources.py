"""What a container's mounts are made of, made ready: sources made and demanded, volumes mounted and filled,
parts of volumes and images found, owners changed.

A part (`volume-subpath`, `image-subpath`) is found beneath its volume or image whatever links lie there, and
bound to a place of its own below the exec-root, where nobody can swap it, until the container's own mount
of it is made. Those places are only ever unmounted and removed when empty.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from sampan.engine.core import Core
from sampan.engine.model import Container, MountPoint
from sampan.engine.spec.users import User, lookup_user
from sampan.errors import InvalidParameter, NotFound, SampanError
from sampan.linux import beneath, syscalls
from sampan.volumes import Translation, give

# Whose owners nobody changes by an option of a mount.
_NOT_TO_GIVE = frozenset(
    "/ /bin /boot /dev /etc /home /lib /lib32 /lib64 /media /mnt /opt /proc /root /run /sbin /srv /sys /tmp "
    "/usr /usr/bin /usr/lib /usr/local /usr/sbin /usr/share /var /var/cache /var/lib /var/log".split()
)


class Sources:
    """The sources of one container's mounts, for as long as it takes to mount them; use as a context.

    Args:
        holder: who holds the volumes: they stay mounted until it lets go, or until the end when it is None.
    """

    def __init__(self, core: Core, container: Container, rootfs: str, holder: str | None = None) -> None:
        self._core = core
        self._container = container
        self._rootfs = rootfs
        self._holder = holder or f"view-{secrets.token_hex(8)}"
        self._user: User | None = None
        self._temporary = holder is None
        self._undo = ExitStack()
        if holder is None:
            self._undo.callback(core.volumes.let_go, self._holder)

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of what was only needed to mount; no error the second time."""
        self._undo.close()

    @property
    def temporary(self) -> bool:
        """Whether there is anything to let go of."""
        return self._temporary

    def ready(self, point: MountPoint, owners: bool = True) -> MountPoint:
        """A mount point whose `source` can be bound now.

        Args:
            owners: change the files' owners, if the mount point says so.

        Raises:
            InvalidParameter, NotFound: there is nothing that could.
            SampanError: a volume cannot be mounted.
        """
        if point.type == "tmpfs":
            return point
        if point.type == "bind":
            self._ready_bind(point)
            ready = point
        elif point.type == "volume":
            ready = self._ready_volume(point)
        else:
            ready = self._ready_image(point)
        if owners and "chown" in point.options:
            self._give(ready)
        return ready

    def user(self) -> User:
        """Whom the container runs as."""
        if self._user is None:
            self._user = lookup_user(self._rootfs, self._container.config.user)
        return self._user

    # --- by type ---

    def _ready_bind(self, point: MountPoint) -> None:
        if "create-source" in point.options and not os.path.lexists(point.source):
            _make_directories(point.source, _ids(point.disk_owner))
        if not os.path.exists(point.source):
            raise InvalidParameter(
                f'invalid mount config for type "bind": bind source path does not exist: {point.source}'
            )

    def _ready_volume(self, point: MountPoint) -> MountPoint:
        volumes = self._core.volumes
        point.source = str(volumes.hold(point.name, self._holder))
        if "nocopy" not in point.options:
            self.fill(point)
        return self._part(point, point.source) if point.subpath else point

    def fill(self, point: MountPoint) -> None:
        """Let a volume that was never used receive what the image has where it will be mounted.

        Raises:
            SampanError, OSError: it cannot; the volume is as it was.
        """
        owners = None
        if point.disk_owner:
            user = self.user()
            owners = Translation(user.uid, user.gid, *_ids(point.disk_owner, (user.uid, user.gid)))
        self._core.volumes.populate(point.name, self._rootfs, point.destination, owners)

    def _ready_image(self, point: MountPoint) -> MountPoint:
        core = self._core
        layer = core.images.resolve(point.image_id).top_layer
        if layer is None:
            raise InvalidParameter(f"image {point.name} has no files that could be mounted")
        root = core.driver.mount_layers_ro(layer)
        self._undo.callback(core.driver.unmount_layers_ro, layer)
        self._temporary = True
        return self._part(point, root) if point.subpath else replace(point, source=root)

    def _part(self, point: MountPoint, whole: str) -> MountPoint:
        """Bind what is at the subpath to a place where nobody can swap it."""
        top = os.open(whole, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        found = -1
        try:
            found = beneath.open_path(top, point.subpath)
            place = self._place(directory=stat.S_ISDIR(os.fstat(found).st_mode))
            syscalls.mount(f"/proc/self/fd/{found}", place, None, syscalls.MS_BIND | syscalls.MS_REC)
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise InvalidParameter(
                f"cannot access path {point.subpath} of {point.type} {point.name}: {reason}"
            ) from error
        finally:
            os.close(top)
            if found >= 0:
                os.close(found)
        return replace(point, source=place)

    def _place(self, directory: bool) -> str:
        place = make_place(self._core, directory)
        self._undo.callback(clear_place, place)
        self._temporary = True
        return str(place)

    def _give(self, point: MountPoint) -> None:
        """What podman's option U does: the files belong to whom the container runs as."""
        user = self.user()
        ids = _ids(point.disk_owner, (user.uid, user.gid))
        if _is_the_machines(point.source):
            raise InvalidParameter(
                f"{point.destination}: the option U will not change the owner of {point.source}: it is the "
                "machine's own; mount a directory below it"
            )
        try:
            give(point.source, *ids)
        except OSError as error:
            raise SampanError(
                f"{point.destination}: cannot give {point.source} to {ids[0]}:{ids[1]}: {error.strerror}"
            ) from error


def fill_volumes(core: Core, container: Container) -> None:
    """Fill a new container's volumes: others may mount them before it is started, if it ever is.

    What is mounted from elsewhere for those that run is filled by the first of these.

    Raises:
        SampanError, OSError: one cannot be filled.
    """
    points = [
        point
        for point in container.mounts
        if point.type == "volume" and "nocopy" not in point.options and core.volumes.fresh(point.name)
    ]
    if not points:
        return
    rootfs = core.driver.mount(container.id)
    try:
        with Sources(core, container, rootfs) as sources:
            for point in points:
                sources.fill(point)
    finally:
        core.driver.unmount(container.id)


def _is_the_machines(path: str) -> bool:
    """By what it is, not by its name: a volume's device may be such a directory, or a link lead to it."""
    found = os.stat(path)
    for own in _NOT_TO_GIVE:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(found, os.stat(own)):
                return True
    return False


def _ids(text: str, otherwise: tuple[int, int] = (-1, -1)) -> tuple[int, int]:
    if not text:
        return otherwise
    uid, _, gid = text.partition(":")
    return int(uid), int(gid)


def _make_directories(path: str, owner: tuple[int, int]) -> None:
    """As mkdir -p; what is new belongs to `owner`."""
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    for one in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(one)
            if owner != (-1, -1):
                os.chown(one, *owner, follow_symlinks=False)


# --- places for parts ---


def _base(core: Core) -> Path:
    return core.options.exec_root / "mounts"


def make_place(core: Core, directory: bool) -> Path:
    """A directory, or an empty file, of nobody else, to mount something on; wants a `clear_place`."""
    base = _base(core)
    base.mkdir(mode=0o700, exist_ok=True)
    place = base / secrets.token_hex(8)
    if directory:
        place.mkdir()
    else:
        place.touch()
    return place


def clear_place(place: Path) -> None:
    """Take a place away. Never what is mounted there: it is removed only when empty."""
    while True:
        try:
            syscalls.umount2(str(place), syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # nothing is mounted there (any more)
                raise
            break
    with contextlib.suppress(FileNotFoundError):
        if place.is_dir():
            place.rmdir()
        else:
            place.unlink()


def sweep(core: Core) -> None:
    """At start-up: take away the places that a crash left."""
    base = _base(core)
    if base.is_dir():
        for place in base.iterdir():
            clear_place(place)


def tell(core: Core, container: Container, action: str) -> None:
    """The events `mount` and `unmount` of a container's volumes, with what Docker tells."""
    for point in container.mounts:
        if point.type != "volume":
            continue
        told = {"driver": point.driver, "container": container.id}
        if action == "mount":
            told |= {
                "destination": point.destination,
                "read/write": "true" if point.rw else "false",
                "propagation": point.propagation,
            }
        core.events.publish("volume", action, point.name, told)


def image_of(core: Core, point: MountPoint) -> str:
    """The id of the image that a new image mount names.

    Raises:
        NotFound: there is none.
    """
    image = core.images.resolve(point.name)
    if image.top_layer is None:
        raise NotFound(f"image {point.name} has no files that could be mounted")
    return image.id
