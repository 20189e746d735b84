"""From config.json to the steps that furnish the container's root (config-linux.md, "Default Filesystems").

Pure: nothing is done here, so that the plan can be printed and tested without root.
"""

from __future__ import annotations

from collections.abc import Mapping

from sampan.errors import Unsupported
from sampan.linux.mounts import MountOptions, parse_options
from sampan.runtime.bundle import ContainerSpec, DeviceSpec, MountSpec
from sampan.runtime.operations import (
    BindMount,
    MakeDevice,
    MakeDirectory,
    MakeLink,
    MakeReadonly,
    Mask,
    MountFilesystem,
    MountReadonly,
    Operation,
    Plan,
)

DEFAULT_DEVICES = (
    DeviceSpec("/dev/null", "c", 1, 3, 0o666, 0, 0),
    DeviceSpec("/dev/zero", "c", 1, 5, 0o666, 0, 0),
    DeviceSpec("/dev/full", "c", 1, 7, 0o666, 0, 0),
    DeviceSpec("/dev/random", "c", 1, 8, 0o666, 0, 0),
    DeviceSpec("/dev/urandom", "c", 1, 9, 0o666, 0, 0),
    DeviceSpec("/dev/tty", "c", 5, 0, 0o666, 0, 0),
)
_LINKS = (
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
    ("pts/ptmx", "/dev/ptmx"),
)


def build_plan(spec: ContainerSpec, cgroup_paths: Mapping[str, str], cgroup_version: int) -> Plan:
    """The steps for a container.

    Args:
        spec: the container.
        cgroup_paths: the container's cgroup directories by controller, for a v1 cgroup mount.
        cgroup_version: 1 or 2.
    """
    steps: list[Operation] = []
    for mount in spec.mounts:
        if mount.type == "cgroup":
            steps += _cgroup(mount, spec, cgroup_paths, cgroup_version)
            continue
        options = parse_options(mount.options)
        if options.bind or mount.type == "bind":
            if not options.bind:
                options.recursive = True
            steps.append(
                BindMount(mount.source, mount.destination, mount.options, options, mount.id_mappings)
            )
        elif mount.id_mappings is not None:
            raise Unsupported(f"config.json: mounts: {mount.destination}: only bind mounts can be id-mapped")
        else:
            plain = mount.type in ("proc", "sysfs")
            steps.append(
                MountFilesystem(mount.type, mount.source, mount.destination, mount.options, options, plain)
            )
    if not any(_is_bind_of_dev(mount) for mount in spec.mounts):
        given = {device.path for device in spec.devices}
        steps += [MakeDevice(device) for device in DEFAULT_DEVICES if device.path not in given]
        steps += [MakeDevice(device) for device in spec.devices]
        steps += [MakeLink(target, path) for target, path in _LINKS]
    if spec.process is not None and spec.process.cwd != "/":
        steps.append(MakeDirectory(spec.process.cwd))
    steps += [MakeReadonly(path) for path in spec.readonly_paths]
    steps += [Mask(path) for path in spec.masked_paths]
    if spec.readonly_rootfs:
        steps.append(MountReadonly("/"))
    return Plan(steps)


def _is_bind_of_dev(mount: MountSpec) -> bool:
    is_bind = mount.type == "bind" or "bind" in mount.options or "rbind" in mount.options
    return is_bind and mount.destination.rstrip("/") == "/dev"


def _cgroup(
    mount: MountSpec, spec: ContainerSpec, cgroup_paths: Mapping[str, str], version: int
) -> list[Operation]:
    options = parse_options(mount.options)
    options.data = []  # the mount is of hierarchies that exist; their options are the host's
    if version == 2:
        if "cgroup" in spec.namespaces:
            return [
                MountFilesystem("cgroup2", "cgroup", mount.destination, mount.options, options, plain=True)
            ]
        options.bind = options.recursive = True
        return [BindMount("/sys/fs/cgroup", mount.destination, mount.options, options)]
    directory = MountOptions(set=options.set & ~1, data=["mode=755", "size=64k"])
    steps: list[Operation] = [
        MountFilesystem("tmpfs", "cgroup", mount.destination, ["mode=755"], directory, plain=True)
    ]
    places: dict[str, str] = {}
    for controller, path in cgroup_paths.items():
        own = spec.cgroups_path.rstrip("/")
        hierarchy = path[: -len(own)] if own and path.endswith(own) else path
        place = f"{mount.destination}/{hierarchy.rstrip('/').rsplit('/', 1)[-1]}"
        name = controller.removeprefix("name=")
        if path not in places:
            places[path] = place
            steps.append(BindMount(path, place, mount.options, parse_options(["bind", *mount.options])))
        link = f"{mount.destination}/{name}"
        if name and link != place:
            steps.append(MakeLink(place.rsplit("/", 1)[-1], link))
    for step in steps:
        if isinstance(step, BindMount):
            step.options.data = []
    if options.set & 1:
        steps.append(MountReadonly(mount.destination))
    return steps
