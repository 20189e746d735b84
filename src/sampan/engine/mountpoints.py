"""From `-v`, `--mount`, `--tmpfs`, `--volumes-from` and the image's VOLUMEs to one list of mount points.

Docker's order: inherited ones first, then binds and mounts, then the image's volumes where nothing else is.
What Docker does not have: a mount's files may belong to another user on the disk than in the container
(`idmap`), or be given to the container's user (`U`, as podman spells it); see docs/volumes.md.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import PurePosixPath

from sampan.engine.model import Container, ContainerConfig, HostConfig, Mount, MountPoint
from sampan.errors import InvalidParameter

PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
MATCH_USER = "match-user"
_CONSISTENCIES = {"consistent", "cached", "delegated", "default"}
_OWNER = re.compile(r"(\d{1,10})(?:[:-](\d{1,10}))?")
_HIGHEST_ID = 2**32 - 2
_KINDS = ("bind", "volume", "tmpfs", "image")

Caller = tuple[int, int]  # the uid and gid of who asks
Refuse = Callable[[str], InvalidParameter]


def bind_point(text: str, caller: Caller | None = None) -> MountPoint:
    """The mount point of one `-v SOURCE:DESTINATION[:OPTIONS]`; a source without `/` in front is a volume.

    Raises:
        InvalidParameter: in Docker's words.
    """
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    source, destination = parts[0], _destination(parts[1], text)
    mode = parts[2] if len(parts) == 3 else ""
    point = MountPoint(source=source, destination=destination, mode=mode)
    if source.startswith("/"):
        point.type, point.source = "bind", os.path.normpath(source)
        point.propagation = "rprivate"
        point.options.append("create-source")
    elif source.startswith("."):
        raise InvalidParameter(
            f"invalid volume specification: '{text}': the source must be an absolute path or a volume's name"
        )
    else:
        point.type, point.name, point.driver, point.source = "volume", source, "local", ""
    _apply_mode(point, mode, caller)
    if point.type == "volume":
        point.mode = mode or "z"  # as Docker shows it
    return point


def _apply_mode(point: MountPoint, mode: str, caller: Caller | None) -> None:
    seen: set[str] = set()
    for option in filter(None, mode.split(",")):
        name, equals, value = option.partition("=")
        if option in ("ro", "rw"):
            kind = "access"
            point.rw = option == "rw"
        elif option in ("z", "Z"):
            kind = "label"  # SELinux relabelling; nothing to do on kernels without it, as in Docker
        elif option in PROPAGATIONS and point.type == "bind":
            kind, point.propagation = "propagation", option
        elif option == "nocopy" and point.type == "volume":
            kind = "copy"
            point.options.append("nocopy")
        elif option in _CONSISTENCIES:
            kind = "consistency"  # meaningful to Docker Desktop only
        elif option == "U":
            kind = "owner"
            point.options.append("chown")
        elif name == "idmap":
            kind = "idmap"
            point.disk_owner = disk_owner(value if equals else MATCH_USER, caller)
        else:
            raise InvalidParameter(f"invalid mode: {mode}")
        if kind in seen:
            raise InvalidParameter(f"invalid mode: {mode}")
        seen.add(kind)


def disk_owner(text: str, caller: Caller | None) -> str:
    """`UID:GID` of an `idmap` option, which is that, `UID-GID`, `UID` (the gid is the same), or `match-user`.

    Args:
        caller: who asks, where that is known.

    Raises:
        InvalidParameter: none of these, or nobody knows who asks.
    """
    if text == MATCH_USER:
        if caller is None:
            raise InvalidParameter(
                "idmap=match-user: only a client at the unix socket has a user and group on this machine; "
                "name them: idmap=UID:GID"
            )
        return f"{caller[0]}:{caller[1]}"
    match = _OWNER.fullmatch(text)
    if match is None or any(int(number) > _HIGHEST_ID for number in match.groups() if number):
        raise InvalidParameter(f"idmap={text}: expected match-user, UID:GID or UID")
    return f"{int(match[1])}:{int(match[2] or match[1])}"


def _destination(path: str, text: str) -> str:
    if not path.startswith("/"):
        raise InvalidParameter(
            f"invalid volume specification: '{text}': invalid mount path: '{path}' "
            "mount path must be absolute"
        )
    clean = os.path.normpath(path).replace("//", "/")
    if clean == "/":
        raise InvalidParameter(
            f"invalid volume specification: '{text}': invalid specification: destination can't be '/'"
        )
    return clean


def mount_point(mount: Mount, caller: Caller | None = None) -> MountPoint:
    """The mount point of one `--mount`.

    Raises:
        InvalidParameter: with the option's name.
    """

    def refuse(reason: str) -> InvalidParameter:
        return InvalidParameter(f'invalid mount config for type "{mount.type}": {reason}')

    if not mount.target:
        raise refuse("field Target must not be empty")
    if not mount.target.startswith("/"):
        raise refuse(f"invalid mount path: '{mount.target}' mount path must be absolute")
    if os.path.normpath(mount.target).lstrip("/") == "":
        raise refuse("invalid specification: destination can't be '/'")
    if mount.type not in _KINDS:
        raise InvalidParameter(
            f'invalid mount config for type "{mount.type}": mount type unknown (not {", ".join(_KINDS)})'
        )
    if mount.consistency and mount.consistency not in _CONSISTENCIES:
        raise refuse(f"invalid consistency: {mount.consistency}")
    point = MountPoint(
        type=mount.type,
        destination=os.path.normpath(mount.target).replace("//", "/"),
        rw=not mount.read_only,
        mode="",
    )
    foreign = {
        "bind": mount.bind_options,
        "volume": mount.volume_options,
        "tmpfs": mount.tmpfs_options,
        "image": mount.image_options,
    }
    for kind, given in foreign.items():
        if given is not None and kind != mount.type:
            raise refuse(f"field {kind.capitalize()}Options must not be specified")
    if mount.type in ("bind", "volume"):
        if mount.id_map:
            point.disk_owner = disk_owner(mount.id_map, caller)
        if mount.chown:
            point.options.append("chown")
    elif mount.id_map or mount.chown:
        raise refuse(f"field {'IDMap' if mount.id_map else 'Chown'} must not be specified")
    _FILL[mount.type](point, mount, refuse)
    return point


def _bind(point: MountPoint, mount: Mount, refuse: Refuse) -> None:
    options = mount.bind_options
    if not mount.source:
        raise refuse("field Source must not be empty")
    if not mount.source.startswith("/"):
        raise refuse(f"invalid mount path: '{mount.source}' mount path must be absolute")
    point.source, point.propagation = os.path.normpath(mount.source), "rprivate"
    if options is not None:
        if options.propagation:
            if options.propagation not in PROPAGATIONS:
                raise refuse(f"invalid propagation mode: {options.propagation}")
            point.propagation = options.propagation
        if options.read_only_non_recursive and options.read_only_force_recursive:
            raise refuse("ReadOnlyNonRecursive and ReadOnlyForceRecursive contradict each other")
        for given, name in (
            (options.read_only_non_recursive, "ReadOnlyNonRecursive"),
            (options.read_only_force_recursive, "ReadOnlyForceRecursive"),
        ):
            if given and not mount.read_only:
                raise refuse(f"{name} needs ReadOnly")
        if options.non_recursive:
            point.options.append("non-recursive")
        if options.read_only_non_recursive:
            point.options.append("ro-non-recursive")
        if options.read_only_force_recursive:
            point.options.append("ro-force-recursive")
        if options.create_mountpoint:
            point.options.append("create-source")
    if "create-source" not in point.options and not os.path.lexists(point.source):
        raise refuse(f"bind source path does not exist: {point.source}")


def _volume(point: MountPoint, mount: Mount, refuse: Refuse) -> None:
    options = mount.volume_options
    point.name, point.driver, point.mode = mount.source, "local", "z"
    if mount.read_only and not mount.source:
        raise refuse("must not set ReadOnly mode when using anonymous volumes")
    if options is None:
        return
    if options.driver_config is not None:
        name, given = options.driver_config.get("Name"), options.driver_config.get("Options") or {}
        if not isinstance(name, str | None):
            raise refuse("VolumeOptions.DriverConfig.Name: expected a text")
        if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
            raise refuse("VolumeOptions.DriverConfig.Options: expected an object of texts")
        point.driver, point.driver_options = name or "local", given
    if options.subpath:
        if not mount.source:
            raise refuse("must not set Subpath when using anonymous volumes")
        point.subpath = _subpath(options.subpath, refuse, "volume")
    if options.no_copy or options.subpath:
        point.options.append("nocopy")
    point.labels = options.labels or {}


def _image(point: MountPoint, mount: Mount, refuse: Refuse) -> None:
    if not mount.source:
        raise refuse("field Source must not be empty")
    point.name, point.rw = mount.source, False
    if mount.image_options is not None and mount.image_options.subpath:
        point.subpath = _subpath(mount.image_options.subpath, refuse, "image")


def _subpath(path: str, refuse: Refuse, what: str) -> str:
    clean = PurePosixPath(os.path.normpath(path))
    if clean.is_absolute() or ".." in clean.parts or "\0" in path:
        raise refuse(f"subpath must be a relative path within the {what}")
    return str(clean)


def _tmpfs(point: MountPoint, mount: Mount, refuse: Refuse) -> None:
    if mount.source:
        raise refuse("field Source must not be specified")
    options = ["noexec", "nosuid", "nodev"]
    given = mount.tmpfs_options
    if given is not None:
        if given.size_bytes < 0:
            raise refuse("the size must not be negative")
        if given.size_bytes:
            options.append(f"size={given.size_bytes}")
        if given.mode:
            options.append(f"mode={given.mode:o}")
        for pair in given.options or []:
            if len(pair) not in (1, 2):
                raise refuse(f"invalid option array length: {len(pair)}, must be 1 or 2")
            if pair[0] == "exec":
                options = [option for option in options if option != "noexec"]
            else:
                options.append("=".join(pair))
    point.options = options


_FILL: dict[str, Callable[[MountPoint, Mount, Refuse], None]] = {
    "bind": _bind,
    "volume": _volume,
    "tmpfs": _tmpfs,
    "image": _image,
}


def collect(
    config: ContainerConfig,
    host_config: HostConfig,
    find: Callable[[str], Container],
    caller: Caller | None = None,
) -> list[MountPoint]:
    """All mount points of a new container.

    Volumes are still without a source, anonymous ones without a name, and images without an id.

    Args:
        config: merged with the image's, whose VOLUMEs count.
        host_config: binds, mounts, tmpfs, volumes-from.
        find: the container of a `--volumes-from` reference.
        caller: who asks, where that is known.

    Raises:
        InvalidParameter: a text that means nothing, or two mounts on one place.
    """
    points: dict[str, MountPoint] = {}
    for text in host_config.volumes_from or []:
        for point in _inherited(text, find):
            points[point.destination] = point
    explicit: set[str] = {os.path.normpath(path) for path in host_config.tmpfs or {}}
    driver = host_config.volume_driver or "local"
    given = [bind_point(text, caller) for text in host_config.binds or []]
    for point in given:
        point.driver = driver if point.type == "volume" else point.driver
    given += [mount_point(mount, caller) for mount in host_config.mounts or []]
    for point in given:
        if point.destination in explicit:
            raise InvalidParameter(f"Duplicate mount point: {point.destination}")
        explicit.add(point.destination)
        points[point.destination] = point
    for path in config.volumes or {}:
        destination = _destination(path, path)
        if destination not in points and destination not in explicit:
            points[destination] = MountPoint(type="volume", destination=destination, driver=driver)
    return list(points.values())


def _inherited(text: str, find: Callable[[str], Container]) -> list[MountPoint]:
    reference, _, mode = text.partition(":")
    words = mode.split(",") if mode else []
    if len(set(words)) < len(words) or not set(words) <= {"ro", "rw", "z", "Z"} or {"ro", "rw"} <= set(words):
        raise InvalidParameter(f"invalid mode: {mode}")
    if not reference:
        raise InvalidParameter("volumes-from specification cannot be an empty string")
    return [
        replace(
            point,
            mode="",
            rw=point.rw and "ro" not in words,
            options=[*(one for one in point.options if one not in ("create-source", "nocopy")), "nocopy"]
            if point.type == "volume"
            else [one for one in point.options if one != "create-source"],
        )
        for point in find(reference).mounts
        if point.type != "tmpfs"
    ]


def tmpfs_points(host_config: HostConfig) -> list[MountPoint]:
    """The mount points of `--tmpfs`, which inspect does not list among the mounts."""
    return [
        MountPoint(
            type="tmpfs",
            destination=_destination(path, path),
            options=["noexec", "nosuid", "nodev", *filter(None, options.split(","))],
        )
        for path, options in (host_config.tmpfs or {}).items()
    ]
