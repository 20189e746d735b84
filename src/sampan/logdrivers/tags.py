"""Log tags, and the attributes that a container's labels and environment add to its lines.

Tags are Docker's templates over what is known of the container (docs.docker.com, "Customize log driver
output"): fields such as `{{.Name}}`, alone or through upper, lower or json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter

DEFAULT = "{{.ID}}"
_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_FORMS = (
    re.compile(r"\.(?P<field>\w+)(?:\s*\|\s*(?P<function>\w+))?"),
    re.compile(r"(?P<function>\w+)\s+\.(?P<field>\w+)"),
)
_FUNCTIONS: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "json": lambda text: json.dumps(text, ensure_ascii=False),
}


@dataclass(frozen=True, slots=True)
class Info:
    """What tags and drivers tell of a container.

    Attributes:
        name: without a slash.
        image_id: with its algorithm in front.
        command: the program and its arguments.
    """

    id: str
    name: str
    image_id: str
    image_name: str
    command: str
    created_at_ns: int
    daemon_name: str = "docker"


_FIELDS: dict[str, Callable[[Info], str]] = {
    "ID": lambda info: info.id[:12],
    "FullID": lambda info: info.id,
    "ContainerID": lambda info: info.id,
    "Name": lambda info: info.name,
    "ContainerName": lambda info: f"/{info.name}",
    "ImageID": lambda info: info.image_id[:12],  # so many letters of `sha256:…`, as in Docker
    "ImageFullID": lambda info: info.image_id,
    "ContainerImageID": lambda info: info.image_id,
    "ImageName": lambda info: info.image_name,
    "ContainerImageName": lambda info: info.image_name,
    "Command": lambda info: info.command,
    "DaemonName": lambda info: info.daemon_name,
}


def check(template: str) -> None:
    """Refuse a tag that could not be rendered.

    Raises:
        InvalidParameter: it has a field or a form that is not offered.
    """
    render(template, Info("0" * 64, "n", "sha256:" + "0" * 64, "i", "c", 0))


def render(template: str, info: Info) -> str:
    """A container's tag.

    Raises:
        InvalidParameter: as for `check`.
    """

    def action(match: re.Match[str]) -> str:
        text = match[1].strip().removeprefix("-").removesuffix("-").strip()
        for form in _FORMS:
            found = form.fullmatch(text)
            if found is None:
                continue
            field, function = found["field"], found["function"]
            if field not in _FIELDS:
                raise InvalidParameter(f"log tag {template!r}: there is no field .{field}")
            if function and function not in _FUNCTIONS:
                raise InvalidParameter(f"log tag {template!r}: the function {function!r} is not offered")
            value = _FIELDS[field](info)
            return _FUNCTIONS[function](value) if function else value
        raise InvalidParameter(f"log tag {template!r}: only fields such as {{{{.Name}}}} are offered")

    rendered = _ACTION.sub(action, template)
    if "{{" in _ACTION.sub("", template):
        raise InvalidParameter(f"log tag {template!r}: unclosed action")
    return rendered


def attributes(options: Mapping[str, str], labels: Mapping[str, str], env: Iterable[str]) -> dict[str, str]:
    """The labels and variables that `labels`, `labels-regex`, `env` and `env-regex` ask for."""
    values = dict(text.partition("=")[::2] for text in env if "=" in text)
    found: dict[str, str] = {}
    for name, source in (("labels", labels), ("env", values)):
        found |= {key: source[key] for key in options.get(name, "").split(",") if key in source}
        if pattern := options.get(f"{name}-regex"):
            found |= {key: value for key, value in source.items() if re.search(pattern, key)}
    return found
