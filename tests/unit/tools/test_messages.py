"""Every message that the documentation quotes is one of the code's: docs/troubleshooting.md and the like."""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))

from messages import modules, text_of  # noqa: E402  (the path comes first)

sys.path.remove(str(ROOT / "tools"))

PAGES = ("troubleshooting.md", "without-root.md")
# Messages that the kernel, or a program in a container, has the words of.
OF_OTHERS = ("clone3: No space left on device", "join session keyring: Disk quota exceeded")


def quoted(page: str) -> list[str]:
    """The messages of a page: what stands as code in the first cell of its tables, other engines' aside."""
    found = []
    for line in (ROOT / "docs" / page).read_text().splitlines():
        cell = line.split(" | ")[0] if line.startswith("| ") else ""
        for part in re.split(r"(?<=`); ", cell):
            if not re.match(r"\|? ?(Docker|in a container):", part):
                found += re.findall(r"`([^`]+)`", part)
    return [one for one in found if one not in (*OF_OTHERS, "info", "idmap")]


@functools.cache
def texts() -> set[str]:
    """The texts of the code, whatever they are for, `…` where they have a value."""
    found = {
        text
        for path, nodes in modules()
        if "doctor" not in path.parts
        for node in nodes
        if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp))
        and (text := text_of(node)) is not None
        and len(re.sub(r"[^a-z]", "", text)) > 8
    }
    modules.cache_clear()  # a million objects, which every search for garbage would go through
    return found


def fits(pattern: str, text: str) -> bool:
    """Whether a text has the parts of a pattern, one after the other, with anything for each `…`."""
    place = 0
    for part in pattern.split("…"):
        place = text.find(part, place)
        if place < 0:
            return False
        place += len(part)
    return True


def known(message: str) -> bool:
    """Whether the code can say so; the page may leave off what follows, or stand for values by `…`."""
    start = message.removesuffix("…").rstrip(" .:;")
    return any(fits(start, one) for one in texts()) or any(
        fits(one, message) and one.count("…") < 4 and len(one) + len(re.findall(r"\W", one)) > 25
        for one in texts()
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_message_is_there(page: str) -> None:
    messages = quoted(page)
    assert len(messages) > 3
    assert [one for one in messages if not known(one)] == []


def test_a_message_that_nobody_says_is_found_out() -> None:
    assert known("volume is in use - […]") and known("remove cargo: volume is in use - [a]")
    assert not known("the volume has sunk") and not known("port is already taken")
