"""What the shipper is told of a container whose lines it sends on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from sampan.dataclasses import dataclass
from sampan.logdrivers.options import DEFAULT_BUFFER, binary_size, boolean
from sampan.logdrivers.tags import DEFAULT, Info, render


@dataclass(frozen=True, slots=True)
class Job:
    """A container's lines, and where they are to go.

    Attributes:
        path: the cache that its monitor writes, in the format of the driver `local`.
        attributes: labels and variables that go with each line.
        hostname: this machine's.
    """

    driver: str
    options: dict[str, str]
    path: str
    info: Info
    attributes: dict[str, str] = field(default_factory=dict)
    hostname: str = ""

    @property
    def tag(self) -> str:
        """What the lines are marked with."""
        return render(self.options.get("tag") or DEFAULT, self.info)

    @property
    def backlog_bytes(self) -> int | None:
        """How much may wait for a receiver that does not take it; None for as much as the cache holds."""
        if self.options.get("mode") == "non-blocking":
            return binary_size(self.options.get("max-buffer-size") or DEFAULT_BUFFER)
        if self.options.get("fluentd-buffer-limit") and flag(self.options, "fluentd-async"):
            return binary_size(self.options["fluentd-buffer-limit"])
        return None

    @property
    def place_path(self) -> Path:
        """The file that says how far the lines were sent."""
        return Path(f"{self.path}.sent")

    def encode(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def decode_job(value: Mapping[str, Any]) -> Job:
    """A `Job` from JSON."""
    return Job(**{**value, "info": Info(**value["info"])})


def flag(options: Mapping[str, str], name: str) -> bool:
    """A boolean option that was checked before; false when it is not given."""
    return boolean(options.get(name) or "false")
