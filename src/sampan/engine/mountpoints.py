"""From `-v`, `--mount`, `--tmpfs`, `--volumes-from` and the image's VOLUMEs to one list of mount points.

Docker's order: inherited ones first, then binds and mounts, then the image's volumes where nothing else is.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from sampan.engine.model import Container, ContainerConfig, HostConfig, Mount, MountPoint
from sampan.errors import InvalidParameter, Unsupported

PROPAGATIONS = {"private", "rprivate", "shared", "rshared", "slave", "rslave"}
_CONSISTENCIES = {"consistent", "cached", "delegated", "default"}


def bind_point(text: str) -> MountPoint:
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
    _apply_mode(point, mode, text)
    return point


def _apply_mode(point: MountPoint, mode: str, text: str) -> None:
    seen: set[str] = set()
    for option in filter(None, mode.split(",")):
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
        else:
            raise InvalidParameter(f"invalid volume specification: '{text}': invalid mode: {mode}")
        if kind in seen:
            raise InvalidParameter(f"invalid volume specification: '{text}': invalid mode: {mode}")
        seen.add(kind)


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


def mount_point(mount: Mount) -> MountPoint:
    """The mount point of one `--mount`.

    Raises:
        InvalidParameter, Unsupported: with the option's name.
    """

    def refuse(reason: str) -> InvalidParameter:
        return InvalidParameter(f'invalid mount config for type "{mount.type}": {reason}')

    if not mount.target:
        raise refuse("field Target must not be empty")
    if not mount.target.startswith("/"):
        raise refuse(f"invalid mount path: '{mount.target}' mount path must be absolute")
    if os.path.normpath(mount.target).lstrip("/") == "":
        raise refuse("invalid specification: destination can't be '/'")
    point = MountPoint(
        type=mount.type, destination=os.path.normpath(mount.target), rw=not mount.read_only, mode=""
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
    if mount.type == "bind":
        _bind(point, mount, refuse)
    elif mount.type == "volume":
        options = mount.volume_options
        point.name, point.driver = mount.source, "local"
        if options is not None:
            if options.driver_config and options.driver_config.get("Name") not in (None, "", "local"):
                raise Unsupported(f"volume driver {options.driver_config['Name']!r}: only local is offered")
            if options.driver_config and options.driver_config.get("Options"):
                raise Unsupported("volume-opt: driver options for volumes are not offered yet")
            if options.subpath:
                raise Unsupported("volume-subpath is not offered yet")
            if options.no_copy:
                point.options.append("nocopy")
            point.labels = options.labels or {}
    elif mount.type == "tmpfs":
        if mount.source:
            raise refuse("field Source must not be specified")
        point.options = _tmpfs_options(mount)
    else:
        raise InvalidParameter(
            f'invalid mount config for type "{mount.type}": mount type unknown (not bind, volume, tmpfs)'
        )
    return point


def _bind(point: MountPoint, mount: Mount, refuse: Callable[[str], InvalidParameter]) -> None:
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


def _tmpfs_options(mount: Mount) -> list[str]:
    options = ["noexec", "nosuid", "nodev"]
    given = mount.tmpfs_options
    if given is not None:
        if given.size_bytes:
            options.append(f"size={given.size_bytes}")
        if given.mode:
            options.append(f"mode={given.mode:o}")
        for pair in given.options or []:
            if pair[0] == "exec":
                options.remove("noexec")
            else:
                options.append("=".join(pair))
    return options


def collect(
    config: ContainerConfig,
    host_config: HostConfig,
    find: Callable[[str], Container],
) -> list[MountPoint]:
    """All mount points of a new container; volumes still without a source, anonymous ones without a name.

    Args:
        config: merged with the image's, whose VOLUMEs count.
        host_config: binds, mounts, tmpfs, volumes-from.
        find: the container of a `--volumes-from` reference.

    Raises:
        InvalidParameter: a text that means nothing, or two mounts on one place.
        Unsupported: an option that this version does not offer.
    """
    points: dict[str, MountPoint] = {}
    for text in host_config.volumes_from or []:
        for point in _inherited(text, find):
            points[point.destination] = point
    explicit: set[str] = {os.path.normpath(path) for path in host_config.tmpfs or {}}
    given = [bind_point(text) for text in host_config.binds or []]
    given += [mount_point(mount) for mount in host_config.mounts or []]
    for point in given:
        if point.destination in explicit:
            raise InvalidParameter(f"Duplicate mount point: {point.destination}")
        explicit.add(point.destination)
        points[point.destination] = point
    for path in config.volumes or {}:
        destination = _destination(path, path)
        if destination not in points and destination not in explicit:
            points[destination] = MountPoint(type="volume", destination=destination, driver="local")
    return list(points.values())


def _inherited(text: str, find: Callable[[str], Container]) -> list[MountPoint]:
    reference, _, mode = text.partition(":")
    if mode not in ("", "ro", "rw", "z", "Z"):
        raise InvalidParameter(f"invalid volumes-from specification: '{text}': invalid mode: {mode}")
    source = find(reference)
    return [
        MountPoint(
            type=point.type,
            name=point.name,
            source=point.source,
            destination=point.destination,
            driver=point.driver,
            mode=mode or point.mode,
            rw=point.rw and mode != "ro",
            propagation=point.propagation,
            options=[option for option in point.options if option != "create-source"],
        )
        for point in source.mounts
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
