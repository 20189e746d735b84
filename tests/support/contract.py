"""Holds answers of the API against Docker's own description (`tests/specs/docker-engine-api-v1.51.yaml`).

Status, body and unknown members: what the description does not know is a finding, unless a table here names
it with its reason.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import yaml

SPEC = Path(__file__).parents[1] / "specs" / "docker-engine-api-v1.51.yaml"

# Any operation may say that the request is wrong, that the daemon failed, or that something is not offered.
ALWAYS = {400, 500, 501, 503}

# Operations of ours, which Docker does not have, and those that dockerd has for people who debug it.
OURS = {
    *("GET /debug/stacks", "GET /debug/vars", "POST /exec/{id}/kill", "POST /sampan/check"),
    "POST /build/cancel",  # which dockerd has, and its description has not
    *(f"{method} /{kind}/{{id}}/egress" for method in ("GET", "PUT") for kind in ("containers", "networks")),
    *(f"GET /{kind}/{{id}}/egress/log" for kind in ("containers", "networks")),
}

# Statuses that dockerd gives and its description leaves out.
STATUSES: dict[str, dict[int, str]] = {
    "GET /images/json": {404: "a filter names an image that there is not"},
    **{
        f"POST /{kind}/prune": {409: "another prune is running"}
        for kind in ("containers", "images", "networks", "volumes")
    },
    "GET /distribution/{name}/json": {404: "the registry has no such image"},
    "POST /containers/{id}/start": {403: "an address that it is to have is in use"},
    "POST /networks/create": {409: "another network has the name"},
    "POST /volumes/create": {404: "there is no such volume driver"},
    "POST /commit": {409: "the container is being removed, or is dead"},
    "POST /images/load": {404: "the archive has no image for the platform"},
}

# What is known of the bodies: the operation, how the finding begins, and what it is about.
_NULL = "dockerd sends null too: not set"
_LEGACY = "what events were told by before API 1.22; dockerd still sends it"
_UNPACKED = "demanded, but the description has no such member"
KNOWN: tuple[tuple[str, str, str], ...] = (
    ("GET /containers/{id}/json", ".HostConfig.MemorySwappiness: None", _NULL),
    ("GET /containers/{id}/json", ".HostConfig.OomKillDisable: None", _NULL),
    ("GET /containers/{id}/json", "HostConfig.Mounts.IDMap: no such", "ours: docs/volumes.md"),
    ("GET /containers/{id}/json", "HostConfig.Mounts.Chown: no such", "ours: docs/volumes.md"),
    ("GET /containers/{id}/json", "HostConfig.Egress: no such", "ours: docs/egress.md"),
    ("GET /containers/{id}/json", "Config.HealthcheckOnFailureAction: no such", "ours, with podman's name"),
    ("GET /exec/{id}/json", ".ExitCode: None", "it has not ended"),
    ("GET /exec/{id}/json", "Error: no such", "ours: an end that was not the command's own"),
    ("GET /events", "status: no such", _LEGACY),
    ("GET /events", "id: no such", _LEGACY),
    ("GET /events", "from: no such", _LEGACY),
    ("GET /images/json", "[0].Manifests[0].ImageData: 'UnpackedSize' is a required", _UNPACKED),
    ("GET /images/{name}/json", ".Manifests[0].ImageData: 'UnpackedSize' is a required", _UNPACKED),
)


@dataclass(frozen=True)
class Operation:
    """One method of one path of the description."""

    method: str
    path: str
    pattern: re.Pattern[str]
    responses: dict[str, Any]

    @property
    def name(self) -> str:
        """As the description spells it."""
        return f"{self.method} {self.path}"


@functools.cache
def specification() -> dict[str, Any]:
    """The description, with null allowed where Go writes it."""
    loaded = yaml.load(SPEC.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return dict(nullable(loaded))


def nullable(node: Any) -> Any:
    """Lists, maps and what says so may be null on the wire, as Go writes its empty ones."""
    if isinstance(node, dict):
        node = {key: nullable(value) for key, value in node.items() if key not in ("example", "examples")}
        kind = node.get("type")
        if isinstance(kind, str) and (node.get("x-nullable") or kind in ("array", "object")):
            node["type"] = [kind, "null"]
        if node.get("x-nullable") and "enum" in node:
            node["enum"] = [*node["enum"], None]
        return node
    return [nullable(item) for item in node] if isinstance(node, list) else node


@functools.cache
def operations() -> tuple[Operation, ...]:
    """All of them, those with the fewest parameters first."""
    found = []
    for path, methods in specification()["paths"].items():
        # names of images have slashes, and by links those of containers: PARENT/ALIAS
        pattern = re.sub(r"\\{(\w+)\\}", lambda m: ".+" if m[1] == "name" else "[^/]+", re.escape(path))
        pattern = re.sub("^/containers/\\[.*?\\+", "/containers/[^/]+(?:/[^/]+)?", pattern)
        for method, described in methods.items():
            responses = {str(status): answer for status, answer in described["responses"].items()}
            found.append(Operation(method.upper(), path, re.compile(pattern, re.DOTALL), responses))
    return tuple(sorted(found, key=lambda one: one.path.count("{")))


def operation_of(method: str, target: str) -> tuple[Operation | None, str]:
    """The described operation of a request, and the version it asks for ("" for none)."""
    path = unquote(target.partition("?")[0])
    prefix = re.match(r"/v(\d+\.\d+)(?=/|$)", path)
    if prefix:
        path = path[prefix.end() :]
    found = next((one for one in operations() if one.method == method and one.pattern.fullmatch(path)), None)
    return found, prefix[1] if prefix else ""


def findings(record: dict[str, Any]) -> Iterator[str]:
    """What is wrong with one recorded answer, a line each."""
    method, target, status = record["method"], record["target"], record["status"]
    operation, version = operation_of(method, target)
    path = target.partition("?")[0]
    if operation is None:
        offered = f"{method} {re.sub(r'^/v[0-9.]+', '', path)}"
        offered = re.sub(r"(?<= )(/exec|/containers|/networks)/[^/]+(?=/)", r"\1/{id}", offered)
        if status < 400 and offered not in OURS:
            yield f"{offered}: {status}, but Docker has no such endpoint"
        return
    described = operation.responses.get(str(status))
    if status == 0:
        if not {"101", "200"} & set(operation.responses):
            yield f"{operation.name}: the connection was handed over, which is not described"
        return
    if status == 409 and operation.path.startswith(("/containers/{id}/", "/exec/{id}/")):
        described = {}  # the container's state forbids it: dockerd says so of each verb
    if described is None and status not in ALWAYS and status not in STATUSES.get(operation.name, {}):
        yield f"{operation.name}: status {status} is not described"
        return
    if status >= 400:
        described = {"schema": {"$ref": "#/definitions/ErrorResponse"}}
    schema = (described or {}).get("schema")
    body = record["body"]
    if schema is None or not record["type"].startswith("application/json"):
        return
    old = version != "" and tuple(map(int, version.split("."))) < (1, 51)
    for value in body if record["lines"] else [body]:
        for line in wrong(schema, value, strict=not old):
            first = re.sub(r"\[\d+\]", "[0]", line)  # of a list, any item
            if not any(name == operation.name and first.startswith(start) for name, start, _ in KNOWN):
                yield f"{operation.name} {status} (v{version or 'newest'}): {line}"


def wrong(schema: dict[str, Any], value: Any, *, strict: bool) -> Iterator[str]:
    """What of `value` is not as the schema says; with `strict` also members that it does not know."""
    whole = {**schema, "definitions": specification()["definitions"]}
    for error in jsonschema.Draft4Validator(whole).iter_errors(value):
        place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
        yield f"{place or 'body'}: {error.message[:160]}"
    if strict:
        for member in dict.fromkeys(unknown(schema, value, "")):
            yield f"{member.lstrip('.')}: no such member is described"


def members(schema: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The properties of a schema and its parts, and what others may be like (None: there are none)."""
    if "$ref" in schema:
        return members(specification()["definitions"][schema["$ref"].rpartition("/")[2]])
    properties, others = dict(schema.get("properties") or {}), schema.get("additionalProperties")
    for part in schema.get("allOf") or []:
        inner, also = members(part)
        properties |= inner
        others = others or also
    return properties, others


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema itself, where another is only a reference to it."""
    while "$ref" in schema:
        schema = specification()["definitions"][schema["$ref"].rpartition("/")[2]]
    return schema


def unknown(schema: dict[str, Any], value: Any, where: str) -> Iterator[str]:
    """The paths of members that the schema does not know."""
    if isinstance(value, list):
        items = resolved(schema).get("items")
        for item in value if items else []:
            yield from unknown(items, item, where)
    if not isinstance(value, dict):
        return
    properties, others = members(schema)
    if not properties and not others:
        return  # an object of any kind
    for key, item in value.items():
        if key in properties:
            yield from unknown(properties[key], item, f"{where}.{key}")
        elif not others:
            yield f"{where}.{key}"
        elif isinstance(others, dict):
            yield from unknown(others, item, f"{where}.*")


@dataclass
class Verdict:
    """What a whole run showed."""

    wrong: list[str]
    unseen: list[str]


def judge(files: Iterable[Path]) -> Verdict:
    """Hold all that was recorded against the description."""
    found: dict[str, None] = {}
    seen: set[str] = set()
    for file in files:
        for line in file.read_bytes().splitlines():
            record = json.loads(line)
            operation, _ = operation_of(record["method"], record["target"])
            if operation is not None:
                seen.add(operation.name)
            found |= dict.fromkeys(findings(record))
    return Verdict(list(found), [one.name for one in operations() if one.name not in seen])
