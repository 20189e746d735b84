"""Small grammars of `run`: ulimits, GPU requests, devices, restart policies, rates."""

from __future__ import annotations

from sampan.cli.values import integer, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ULIMITS = (
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)


def parse_ulimit(text: str) -> dict[str, Any]:
    """`nofile=1024:2048` as the API takes it; a soft limit alone is the hard one too."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    parts = limits.split(":")
    if len(parts) > 2 or not parts[0]:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`")
    soft = integer(parts[0])
    hard = integer(parts[1]) if len(parts) > 1 and parts[1] else soft
    if hard != -1 and (soft == -1 or soft > hard):
        if soft == -1:
            raise ValueError(
                "ulimit soft limit must be less than or equal to hard limit: "
                f"soft: -1 (unlimited), hard: {hard}"
            )
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}")
    return {"Name": name, "Soft": soft, "Hard": hard}


def parse_gpus(text: str) -> dict[str, Any]:
    """`all`, a count, or fields, as a device request of the API."""
    request: dict[str, Any] = {
        "Driver": "",
        "Count": 0,
        "DeviceIDs": None,
        "Capabilities": [["gpu"]],
        "Options": {},
    }
    counted = False
    for field in comma_separated(text):
        name, equals, value = field.partition("=")
        if not equals:
            name, value = "count", name
        if name == "count":
            counted = True
            if value == "all":
                request["Count"] = -1
            else:
                try:
                    request["Count"] = int(value)
                except ValueError:
                    raise ValueError(
                        f'invalid count ({value}): value must be either "all" or an integer: invalid syntax'
                    ) from None
        elif name == "driver":
            request["Driver"] = value
        elif name == "device":
            request["DeviceIDs"] = value.split(",")
        elif name == "capabilities":
            request["Capabilities"] = [[*value.split(","), "gpu"]]
        elif name == "options":
            request["Options"] = dict(one.partition("=")[::2] for one in value.split(","))
        else:
            raise ValueError(f"unexpected key '{name}' in '{field}'")
    if not counted and not request["DeviceIDs"]:
        request["Count"] = 1
    return request


def comma_separated(text: str) -> list[str]:
    """The fields of one line of CSV: commas split, except inside double quotes (RFC 4180)."""
    fields, current, quoted, index = [], "", False, 0
    while index < len(text):
        one = text[index]
        index += 1
        if quoted:
            if one == '"' and text[index : index + 1] == '"':
                current += '"'
                index += 1
            elif one == '"':
                quoted = False
            else:
                current += one
        elif one == '"' and not current:
            quoted = True
        elif one == ",":
            fields.append(current)
            current = ""
        else:
            current += one
    if quoted:
        raise ValueError(f"parse error: unclosed quote in {text}")
    return [*fields, current]


def parse_device(text: str) -> dict[str, str]:
    """`/dev/a[:/dev/b][:rwm]` as the API takes it."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise ValueError(f"invalid device specification: {text}")
    source, target, mode = parts[0], "", "rwm"
    if len(parts) == 3:
        target, mode = parts[1], parts[2]
        if not _device_mode(mode):
            raise ValueError(f"bad mode specified: {mode}")
    elif len(parts) == 2:
        if _device_mode(parts[1]):
            mode = parts[1]
        else:
            target = parts[1]
    target = target or source
    if not target.startswith("/"):
        raise ValueError(f"{target} is not an absolute path")
    return {"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": mode}


def _device_mode(mode: str) -> bool:
    return bool(mode) and set(mode) <= set("rwm") and len(set(mode)) == len(mode)


def parse_restart(text: str) -> dict[str, Any]:
    """`on-failure:3` as the API takes it."""
    name, colon, count = text.partition(":")
    if not name and colon:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    retries = 0
    if colon and count:
        try:
            retries = int(count)
        except ValueError:
            raise ValueError(
                "invalid restart policy format: maximum retry count must be an integer"
            ) from None
    return {"Name": name, "MaximumRetryCount": retries}


def rates(given: list[str], sized: bool) -> list[dict[str, Any]]:
    """Checked `PATH:RATE` texts as the API takes them."""
    found = []
    for text in given:
        path, _, rate = text.partition(":")
        found.append({"Path": path, "Rate": size(rate) if sized else int(rate)})
    return found
