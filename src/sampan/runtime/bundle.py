"""A bundle's config.json as dataclasses, checked once at the edge (OCI runtime spec 1.2, config.md).

What the runtime cannot do is refused here by its name in the spec; nothing is read and then ignored.
"""

from __future__ import annotations

import json
from dataclasses import field
from typing import Any

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter, Unsupported
from sampan.linux.namespaces import KINDS

_HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


@dataclass(slots=True)
class Capabilities:
    """The five sets, by capability names; None where the config says nothing: keep all."""

    bounding: list[str] = field(default_factory=list)
    effective: list[str] = field(default_factory=list)
    inheritable: list[str] = field(default_factory=list)
    permitted: list[str] = field(default_factory=list)
    ambient: list[str] = field(default_factory=list)


@dataclass(slots=True)
class ProcessSpec:
    """The program to run and as whom (config.md, "Process")."""

    args: list[str]
    cwd: str
    env: list[str] = field(default_factory=list)
    terminal: bool = False
    console_size: tuple[int, int] | None = None
    uid: int = 0
    gid: int = 0
    additional_gids: list[int] = field(default_factory=list)
    umask: int = 0o022
    capabilities: Capabilities | None = None
    rlimits: list[dict[str, Any]] = field(default_factory=list)
    no_new_privileges: bool = False
    oom_score_adj: int | None = None
    apparmor_profile: str = ""


@dataclass(frozen=True, slots=True)
class IdMappings:
    """Lines of uid_map and gid_map (user_namespaces(7)): first id inside, first id outside, how many."""

    uids: tuple[tuple[int, int, int], ...]
    gids: tuple[tuple[int, int, int], ...]


@dataclass(slots=True)
class MountSpec:
    """One entry of `mounts`."""

    destination: str
    type: str = ""
    source: str = ""
    options: list[str] = field(default_factory=list)
    id_mappings: IdMappings | None = None


@dataclass(slots=True)
class DeviceSpec:
    """One device node to make."""

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int


@dataclass(slots=True)
class HookSpec:
    """A program run at a point of the container's life."""

    path: str
    args: list[str]
    env: list[str]
    timeout_s: int | None


@dataclass(slots=True)
class ContainerSpec:
    """All of config.json that the runtime acts on. `namespaces` maps a kind to a path, "" for a new one."""

    process: ProcessSpec | None
    rootfs: str
    readonly_rootfs: bool
    mounts: list[MountSpec]
    hostname: str
    domainname: str
    namespaces: dict[str, str]
    devices: list[DeviceSpec]
    masked_paths: list[str]
    readonly_paths: list[str]
    sysctl: dict[str, str]
    resources: dict[str, Any] | None
    cgroups_path: str
    seccomp: dict[str, Any] | None
    rootfs_propagation: str
    hooks: dict[str, list[HookSpec]]
    annotations: dict[str, str]


def _refuse(section: dict[str, Any], where: str, *names: str) -> None:
    for name in names:
        if section.get(name):
            raise Unsupported(f"config.json: {where}.{name} is not supported")


def parse_process(value: dict[str, Any]) -> ProcessSpec:
    """An OCI `process` object.

    Raises:
        InvalidParameter: for one that lacks arguments or an absolute cwd.
        Unsupported: for a member that this runtime cannot honour.
    """
    _refuse(value, "process", "selinuxLabel", "ioPriority", "scheduler", "execCPUAffinity")
    if not value.get("args"):
        raise InvalidParameter("config.json: process.args must not be empty")
    cwd = value.get("cwd") or "/"
    if not cwd.startswith("/"):
        raise InvalidParameter(f"config.json: process.cwd must be an absolute path, not {cwd!r}")
    user = value.get("user") or {}
    size = value.get("consoleSize")
    given = value.get("capabilities")
    return ProcessSpec(
        args=value["args"],
        cwd=cwd,
        env=value.get("env") or [],
        terminal=bool(value.get("terminal")),
        console_size=(size["height"], size["width"]) if size else None,
        uid=user.get("uid", 0),
        gid=user.get("gid", 0),
        additional_gids=user.get("additionalGids") or [],
        umask=0o022 if user.get("umask") is None else user["umask"],
        capabilities=None
        if given is None
        else Capabilities(
            **{
                name: given.get(name) or []
                for name in ("bounding", "effective", "inheritable", "permitted", "ambient")
            }
        ),
        rlimits=value.get("rlimits") or [],
        no_new_privileges=bool(value.get("noNewPrivileges")),
        oom_score_adj=value.get("oomScoreAdj"),
        apparmor_profile=value.get("apparmorProfile") or "",
    )


def parse_config(value: dict[str, Any]) -> ContainerSpec:
    """A config.json.

    Raises:
        InvalidParameter: for one that contradicts the spec.
        Unsupported: for a member that this runtime cannot honour.
    """
    if not str(value.get("ociVersion", "")).startswith("1."):
        raise InvalidParameter(f"config.json: unknown ociVersion {value.get('ociVersion')!r}")
    _refuse(value, "config", "vm", "windows", "solaris", "zos", "freebsd")
    linux = value.get("linux") or {}
    _refuse(
        linux, "linux", "intelRdt", "mountLabel", "uidMappings", "gidMappings", "personality", "timeOffsets",
        "netDevices",
    )  # fmt: skip
    namespaces: dict[str, str] = {}
    for entry in linux.get("namespaces") or []:
        kind = entry.get("type")
        if kind not in KINDS:
            raise InvalidParameter(f"config.json: unknown namespace type {kind!r}")
        if kind in namespaces:
            raise InvalidParameter(f"config.json: namespace {kind!r} is named twice")
        namespaces[kind] = entry.get("path") or ""
    if "user" in namespaces:
        raise Unsupported("config.json: user namespaces are not supported")
    if "mount" not in namespaces:
        raise Unsupported("config.json: a container without a mount namespace is not supported")
    root = value.get("root") or {}
    if not root.get("path"):
        raise InvalidParameter("config.json: root.path is missing")
    mounts = []
    for entry in value.get("mounts") or []:
        mounts.append(
            MountSpec(
                entry["destination"], entry.get("type") or "", entry.get("source") or "",
                entry.get("options") or [], _id_mappings(entry),
            )
        )  # fmt: skip
    if (value.get("hostname") or value.get("domainname")) and "uts" not in namespaces:
        raise InvalidParameter("config.json: hostname and domainname need a uts namespace")
    sysctl = linux.get("sysctl") or {}
    for key in sysctl:
        _check_sysctl(key, namespaces)
    process = value.get("process")
    given_hooks = value.get("hooks") or {}
    for name in given_hooks:
        if name not in _HOOKS:
            raise Unsupported(f"config.json: hooks.{name} is not supported")
    return ContainerSpec(
        process=parse_process(process) if process else None,
        rootfs=root["path"],
        readonly_rootfs=bool(root.get("readonly")),
        mounts=mounts,
        hostname=value.get("hostname") or "",
        domainname=value.get("domainname") or "",
        namespaces=namespaces,
        devices=[_device(entry) for entry in linux.get("devices") or []],
        masked_paths=linux.get("maskedPaths") or [],
        readonly_paths=linux.get("readonlyPaths") or [],
        sysctl=sysctl,
        resources=linux.get("resources"),
        cgroups_path=linux.get("cgroupsPath") or "",
        seccomp=linux.get("seccomp"),
        rootfs_propagation=linux.get("rootfsPropagation") or "",
        hooks={name: [_hook(entry) for entry in entries] for name, entries in given_hooks.items() if entries},
        annotations=value.get("annotations") or {},
    )


_IPC_SYSCTLS = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.")


def _check_sysctl(key: str, namespaces: dict[str, str]) -> None:
    """Let through what belongs to a namespace of the container's; anything else would change the host."""
    name = key.replace("/", ".")
    needed = (
        "network" if name.startswith("net.")
        else "ipc" if name.startswith(_IPC_SYSCTLS)
        else "uts" if name == "kernel.domainname"
        else None
    )  # fmt: skip
    if needed is None:
        raise InvalidParameter(f"config.json: sysctl {key!r} is not in a separate kernel namespace")
    if needed not in namespaces:
        raise InvalidParameter(
            f"config.json: sysctl {key!r} needs a {needed} namespace of the container's own"
        )


def load(bundle: str) -> dict[str, Any]:
    """The JSON object in a bundle's config.json; errors as `load_json`."""
    return load_json(f"{bundle}/config.json")


def load_json(path: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        InvalidParameter: when it is missing or no JSON object.
    """
    try:
        with open(path, "rb") as file:
            value = json.loads(file.read())
    except FileNotFoundError:
        raise InvalidParameter(f"{path} does not exist") from None
    except ValueError as error:
        raise InvalidParameter(f"{path}: {error}") from None
    if not isinstance(value, dict):
        raise InvalidParameter(f"{path}: expected an object")
    return value


def _id_mappings(entry: dict[str, Any]) -> IdMappings | None:
    wanted = {"idmap", "ridmap"} & set(entry.get("options") or ())
    given = [entry.get(name) or [] for name in ("uidMappings", "gidMappings")]
    if not wanted and not any(given):
        return None
    if not all(given):
        raise InvalidParameter(
            f"config.json: mounts: {entry['destination']}: id-mapped without uidMappings and gidMappings"
        )
    uids, gids = (
        tuple((line["containerID"], line["hostID"], line["size"]) for line in lines) for lines in given
    )
    return IdMappings(uids, gids)


def _device(entry: dict[str, Any]) -> DeviceSpec:
    kind = entry.get("type")
    if kind not in ("c", "b", "u", "p"):
        raise InvalidParameter(f"config.json: linux.devices: unknown type {kind!r} of {entry.get('path')!r}")
    mode = entry.get("fileMode")
    return DeviceSpec(
        path=entry["path"],
        type=kind,
        major=entry.get("major", 0),
        minor=entry.get("minor", 0),
        mode=0o666 if mode is None else mode,
        uid=entry.get("uid") or 0,
        gid=entry.get("gid") or 0,
    )


def _hook(entry: dict[str, Any]) -> HookSpec:
    path = entry.get("path") or ""
    if not path.startswith("/"):
        raise InvalidParameter(f"config.json: hooks: path must be absolute, not {path!r}")
    return HookSpec(path, entry.get("args") or [path], entry.get("env") or [], entry.get("timeout"))
