"""The environment of a container's processes: Docker's defaults, overridden by the image's and the user's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sampan.engine.model import Container

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def override(defaults: Sequence[str], overrides: Iterable[str]) -> list[str]:
    """Both lists as one: a later `NAME=value` takes the place of an earlier one; a bare `NAME` removes it."""
    merged = {text.partition("=")[0]: text for text in defaults}
    for text in overrides:
        name, equals, _ = text.partition("=")
        if equals:
            merged[name] = text
        else:
            merged.pop(name, None)
    return list(merged.values())


def container_environment(container: Container, tty: bool) -> list[str]:
    """PATH, HOSTNAME and with a terminal TERM, then what links, the image and the user say."""
    config = container.config
    defaults = [f"PATH={DEFAULT_PATH}", f"HOSTNAME={config.hostname}"]
    if tty:
        defaults.append("TERM=xterm")
    return override(defaults, [*container.linked_environment, *(config.env or ())])


def with_home(environment: list[str], home: str) -> list[str]:
    """The same with HOME from the user's passwd entry, unless somebody has set it."""
    if any(text.startswith("HOME=") and text != "HOME=" for text in environment):
        return environment
    return [*(text for text in environment if text != "HOME="), f"HOME={home}"]
