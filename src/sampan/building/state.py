"""What is known of a stage while it is built."""

from __future__ import annotations

from sampan.dataclasses import dataclass
from sampan.dockerfile import Settings, StageArguments, environment_of
from sampan.oci.image import ImageConfig, Platform

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(slots=True)
class State:
    """A stage so far.

    Attributes:
        index: its place in the Dockerfile, from 0.
        arguments: the build arguments that it has declared.
        image_id: of its last step; empty before the first one on top of nothing.
        platform: of an image that stands on nothing, when it is not this machine's.
        cached: whether all steps so far were done before.
    """

    index: int
    settings: Settings
    arguments: StageArguments
    image_id: str = ""
    author: str = ""
    platform: Platform | None = None
    cached: bool = True

    @property
    def config(self) -> ImageConfig:
        """What containers of it run with."""
        return self.settings.config

    def environment(self) -> dict[str, str]:
        """The variables of that."""
        return environment_of(self.config)

    def take_triggers(self) -> list[str]:
        """The instructions that the base image has left for those who build on it."""
        triggers, self.config.on_build = self.config.on_build or [], None
        return triggers

    def complete_path(self) -> None:
        """Set PATH where the base image has none."""
        if "PATH" not in self.environment():
            self.config.env = [*(self.config.env or []), f"PATH={DEFAULT_PATH}"]
