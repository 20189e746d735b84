"""What ends a build."""

from __future__ import annotations

from sampan.errors import SampanError


class BuildCancelled(SampanError):
    """Nobody waits for the image any more."""

    def __init__(self) -> None:
        super().__init__("the build was cancelled")


class CommandFailed(SampanError):
    """A command of RUN ended with another code than 0, which is `code`."""

    def __init__(self, command: list[str], code: int) -> None:
        super().__init__(f"The command '{' '.join(command)}' returned a non-zero code: {code}")
        self.code = code
