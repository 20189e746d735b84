"""Image manifest, index, descriptor and config: parsed at the edge, dataclasses inside (OCI image spec 1.1).

Parsing is lenient about members that are not known (a config may carry anything) and strict about the types
of those that are. Bytes that arrived are kept as they came; only documents of our own are encoded here.
"""

from __future__ import annotations

import json
import platform as host
from dataclasses import field
from typing import Any

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
from sampan.oci import media_types
from sampan.oci.digest import chain_ids, check_digest

DOCUMENT_LIMIT_BYTES = 8 << 20


class InvalidImage(InvalidParameter):
    """A document of an image is not what the specification says."""


@dataclass(slots=True)
class Platform:
    """What a manifest is for."""

    os: str = "linux"
    architecture: str = ""
    variant: str = ""
    os_version: str = ""


@dataclass(slots=True)
class Descriptor:
    """A blob by digest, with its size in bytes and what it is."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = field(default_factory=dict)
    platform: Platform | None = None


@dataclass(slots=True)
class Manifest:
    """One image for one platform."""

    config: Descriptor
    layers: list[Descriptor]
    media_type: str = media_types.OCI_MANIFEST
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Index:
    """Manifests, or further indexes."""

    manifests: list[Descriptor]
    media_type: str = media_types.OCI_INDEX
    annotations: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Healthcheck:
    """How to probe a container's health; durations in nanoseconds, 0 to inherit."""

    test: list[str] = field(default_factory=list)
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(slots=True)
class ImageConfig:
    """What a container of the image runs with unless told otherwise (the document's member `config`)."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    healthcheck: Healthcheck | None = None
    on_build: list[str] | None = None
    shell: list[str] | None = None
    args_escaped: bool = False


@dataclass(slots=True)
class History:
    """How one step of the image came about; `created` is RFC 3339 as written in the document."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


@dataclass(slots=True)
class ImageDocument:
    """The whole config document, whose digest is the image's id."""

    architecture: str
    os: str
    config: ImageConfig
    diff_ids: list[str]
    history: list[History] = field(default_factory=list)
    created: str = ""
    author: str = ""
    comment: str = ""
    variant: str = ""
    os_version: str = ""
    docker_version: str = ""

    @property
    def chain_ids(self) -> list[str]:
        """The chain id of each layer, lowest first."""
        return chain_ids(self.diff_ids)

    @property
    def platform(self) -> Platform:
        """What the image is for."""
        return Platform(self.os or "linux", self.architecture, self.variant, self.os_version)

    @property
    def top_layer(self) -> str | None:
        """The chain id of the topmost layer; None when there is no layer."""
        chain = self.chain_ids
        return chain[-1] if chain else None


_MACHINES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i686": "386",
    "i386": "386",
}


def local_architecture() -> str:
    """This machine's architecture by the name that images use."""
    machine = host.machine()
    return _MACHINES.get(machine, machine)


# --- parsing ---


def load_object(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `data`.

    Args:
        data: a document of at most `DOCUMENT_LIMIT_BYTES`.
        what: its name in messages.

    Raises:
        InvalidImage: not JSON, not an object, or too large.
    """
    if len(data) > DOCUMENT_LIMIT_BYTES:
        raise InvalidImage(f"{what} has {len(data)} bytes, more than the limit of {DOCUMENT_LIMIT_BYTES}")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidImage(f"{what} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidImage(f"{what} is not a JSON object")
    return value


_KINDS = {str: "a text", int: "a number", bool: "true or false", list: "a list", dict: "an object"}


def _get(value: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    found = value.get(key)
    if found is None:
        return default
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise InvalidImage(f"{key}: expected {_KINDS[kind]}")
    return found


def _texts(value: dict[str, Any], key: str) -> list[str] | None:
    found: list[Any] | None = _get(value, key, list, None)
    if found is not None and not all(isinstance(item, str) for item in found):
        raise InvalidImage(f"{key}: expected a list of texts")
    return found


def _text_map(value: dict[str, Any], key: str) -> dict[str, str] | None:
    found: dict[str, Any] | None = _get(value, key, dict, None)
    if found is not None and not all(isinstance(item, str) for item in found.values()):
        raise InvalidImage(f"{key}: expected an object of texts")
    return found


def _set(value: dict[str, Any], key: str) -> dict[str, dict[str, Any]] | None:
    found = _get(value, key, dict, None)
    return None if found is None else {name: {} for name in found}


def parse_descriptor(value: Any) -> Descriptor:
    """A descriptor from its JSON object; the digest is checked for form.

    Raises:
        InvalidImage, InvalidParameter: for a wrong type or digest.
    """
    if not isinstance(value, dict):
        raise InvalidImage("descriptor: expected an object")
    given = _get(value, "platform", dict, None)
    size = _get(value, "size", int, 0)
    if size < 0:
        raise InvalidImage("size: a descriptor's size cannot be negative")
    return Descriptor(
        media_type=_get(value, "mediaType", str, ""),
        digest=check_digest(value.get("digest"), "digest in a descriptor"),
        size=size,
        annotations=_text_map(value, "annotations") or {},
        platform=None if given is None else parse_platform(given),
    )


def parse_platform(value: dict[str, Any]) -> Platform:
    """A platform from its JSON object."""
    return Platform(
        os=_get(value, "os", str, ""),
        architecture=_get(value, "architecture", str, ""),
        variant=_get(value, "variant", str, ""),
        os_version=_get(value, "os.version", str, ""),
    )


def parse_manifest(data: bytes, media_type: str = "") -> Manifest:
    """An image manifest, OCI's or Docker's schema 2.

    Raises:
        InvalidImage: when it is neither.
    """
    value = load_object(data, "image manifest")
    if _get(value, "schemaVersion", int, 0) != 2 or "config" not in value:
        raise InvalidImage("not an image manifest of schema version 2")
    return Manifest(
        config=parse_descriptor(value["config"]),
        layers=[parse_descriptor(item) for item in _get(value, "layers", list, [])],
        media_type=_get(value, "mediaType", str, "") or media_type or media_types.OCI_MANIFEST,
        annotations=_text_map(value, "annotations") or {},
    )


def parse_index(data: bytes) -> Index:
    """An image index, or Docker's manifest list.

    Raises:
        InvalidImage: when it is neither.
    """
    value = load_object(data, "image index")
    if _get(value, "schemaVersion", int, 0) != 2 or "manifests" not in value:
        raise InvalidImage("not an image index of schema version 2")
    return Index(
        manifests=[parse_descriptor(item) for item in _get(value, "manifests", list, [])],
        media_type=_get(value, "mediaType", str, "") or media_types.OCI_INDEX,
        annotations=_text_map(value, "annotations") or {},
    )


def parse_image(data: bytes) -> ImageDocument:
    """The config document of an image.

    Raises:
        InvalidImage, InvalidParameter: when a member has a wrong type or a diff id is none.
    """
    value = load_object(data, "image config")
    rootfs = _get(value, "rootfs", dict, {})
    if rootfs and rootfs.get("type", "layers") != "layers":
        raise InvalidImage(f"rootfs type {rootfs.get('type')!r} is not known (expected layers)")
    steps = _get(value, "history", list, [])
    return ImageDocument(
        architecture=_get(value, "architecture", str, ""),
        os=_get(value, "os", str, ""),
        config=parse_config(_get(value, "config", dict, {})),
        diff_ids=[check_digest(item, "diff id") for item in _get(rootfs, "diff_ids", list, [])],
        history=[_history(step) for step in steps],
        created=_get(value, "created", str, ""),
        author=_get(value, "author", str, ""),
        comment=_get(value, "comment", str, ""),
        variant=_get(value, "variant", str, ""),
        os_version=_get(value, "os.version", str, ""),
        docker_version=_get(value, "docker_version", str, ""),
    )


def _history(step: Any) -> History:
    if not isinstance(step, dict):
        raise InvalidImage("history: expected a list of objects")
    return History(
        created=_get(step, "created", str, ""),
        created_by=_get(step, "created_by", str, ""),
        author=_get(step, "author", str, ""),
        comment=_get(step, "comment", str, ""),
        empty_layer=_get(step, "empty_layer", bool, False),
    )


def parse_config(value: dict[str, Any]) -> ImageConfig:
    """The member `config` of a config document."""
    health = _get(value, "Healthcheck", dict, None)
    return ImageConfig(
        user=_get(value, "User", str, ""),
        exposed_ports=_set(value, "ExposedPorts"),
        env=_texts(value, "Env"),
        entrypoint=_texts(value, "Entrypoint"),
        cmd=_texts(value, "Cmd"),
        volumes=_set(value, "Volumes"),
        working_dir=_get(value, "WorkingDir", str, ""),
        labels=_text_map(value, "Labels"),
        stop_signal=_get(value, "StopSignal", str, ""),
        stop_timeout=_get(value, "StopTimeout", int, None),
        healthcheck=None if health is None else _healthcheck(health),
        on_build=_texts(value, "OnBuild"),
        shell=_texts(value, "Shell"),
        args_escaped=_get(value, "ArgsEscaped", bool, False),
    )


def _healthcheck(value: dict[str, Any]) -> Healthcheck:
    return Healthcheck(
        test=_texts(value, "Test") or [],
        interval=_get(value, "Interval", int, 0),
        timeout=_get(value, "Timeout", int, 0),
        start_period=_get(value, "StartPeriod", int, 0),
        start_interval=_get(value, "StartInterval", int, 0),
        retries=_get(value, "Retries", int, 0),
    )


# --- encoding ---


def to_json(value: Any) -> bytes:
    """Compact JSON, members in the order given, as the documents of other tools have it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def encode_descriptor(descriptor: Descriptor) -> dict[str, Any]:
    """The JSON object of a descriptor."""
    value: dict[str, Any] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if descriptor.annotations:
        value["annotations"] = descriptor.annotations
    if descriptor.platform is not None:
        value["platform"] = encode_platform(descriptor.platform)
    return value


def encode_platform(platform: Platform) -> dict[str, str]:
    """The JSON object of a platform."""
    value = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        value["os.version"] = platform.os_version
    if platform.variant:
        value["variant"] = platform.variant
    return value


def encode_manifest(manifest: Manifest) -> bytes:
    """The bytes of a manifest."""
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": manifest.media_type,
        "config": encode_descriptor(manifest.config),
        "layers": [encode_descriptor(layer) for layer in manifest.layers],
    }
    if manifest.annotations:
        value["annotations"] = manifest.annotations
    return to_json(value)


def encode_index(index: Index) -> bytes:
    """The bytes of an index."""
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": index.media_type,
        "manifests": [encode_descriptor(manifest) for manifest in index.manifests],
    }
    if index.annotations:
        value["annotations"] = index.annotations
    return to_json(value)


def encode_config(config: ImageConfig) -> dict[str, Any]:
    """The JSON object of the member `config`, without members that say nothing."""
    health = config.healthcheck
    members: dict[str, Any] = {
        "User": config.user,
        "ExposedPorts": config.exposed_ports,
        "Env": config.env,
        "Entrypoint": config.entrypoint,
        "Cmd": config.cmd,
        "Healthcheck": None if health is None else _encode_healthcheck(health),
        "ArgsEscaped": config.args_escaped,
        "Volumes": config.volumes,
        "WorkingDir": config.working_dir,
        "OnBuild": config.on_build,
        "Labels": config.labels,
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout,
        "Shell": config.shell,
    }
    return {key: value for key, value in members.items() if value not in (None, "", False, {}, [])}


def _encode_healthcheck(health: Healthcheck) -> dict[str, Any]:
    members = {
        "Test": health.test,
        "Interval": health.interval,
        "Timeout": health.timeout,
        "StartPeriod": health.start_period,
        "StartInterval": health.start_interval,
        "Retries": health.retries,
    }
    return {key: value for key, value in members.items() if value}


def encode_image(document: ImageDocument) -> bytes:
    """The bytes of a config document of our own."""
    value: dict[str, Any] = {
        "architecture": document.architecture,
        "os": document.os,
        "created": document.created,
        "config": encode_config(document.config),
        "rootfs": {"type": "layers", "diff_ids": document.diff_ids},
        "history": [_encode_history(step) for step in document.history],
    }
    for key in ("author", "comment", "variant", "docker_version"):
        if getattr(document, key):
            value[key] = getattr(document, key)
    return to_json(value)


def _encode_history(step: History) -> dict[str, Any]:
    members = {
        "created": step.created,
        "created_by": step.created_by,
        "author": step.author,
        "comment": step.comment,
        "empty_layer": step.empty_layer,
    }
    return {key: value for key, value in members.items() if value}
