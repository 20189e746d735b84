"""What a build tells while it goes on, in the form and words of Docker's classic builder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def short(identity: str) -> str:
    """The first twelve digits of an image's or a container's id."""
    return identity.removeprefix("sha256:")[:12]


class Output:
    """Messages to the client.

    Args:
        tell: takes one message; it may be called from any thread.
    """

    def __init__(self, tell: Callable[[dict[str, Any]], None]) -> None:
        self.message = tell

    def line(self, text: str) -> None:
        """A line of its own."""
        self.message({"stream": f"{text}\n"})

    def step(self, number: int, total: int, text: str) -> None:
        """An instruction is about to be followed."""
        self.message({"stream": f"Step {number}/{total} : {text}"})
        self.message({"stream": "\n"})

    def command(self, stream: int, text: str) -> None:
        """Output of a command: 1 for stdout, 2 for stderr, which is shown in red."""
        self.message({"stream": f"\x1b[91m{text}\x1b[0m" if stream == 2 else text})

    def result(self, image_id: str) -> None:
        """A stage's image, for programs."""
        self.message({"aux": {"ID": image_id}})
