"""Every message that the documentation quotes is one of the code's: docs/troubleshooting.md and the like."""

from __future__ import annotations

import ast
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


def patterns() -> list[re.Pattern[str]]:
    """The texts of the code, whatever they are for, as patterns: a value may be anything."""
    texts = {
        text
        for path, nodes in modules()
        if "doctor" not in path.parts
        for node in nodes
        if isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp))
        and (text := text_of(node)) is not None
        and len(re.sub(r"[^a-z]", "", text)) > 8
    }
    return [re.compile(re.escape(text).replace("…", ".*"), re.DOTALL) for text in texts]


KNOWN = patterns()


def known(message: str) -> bool:
    """Whether the code can say so; the page may leave off what follows, or stand for values by `…`."""
    start = message.removesuffix("…").rstrip(" .:;")
    shown = re.compile(re.escape(start).replace("…", ".*"), re.DOTALL)
    return any(shown.search(one.pattern.replace("\\", "").replace(".*", "…")) for one in KNOWN) or any(
        one.search(message) for one in KNOWN if one.pattern.count(".*") < 4 and len(one.pattern) > 25
    )


@pytest.mark.parametrize("page", PAGES)
def test_every_message_is_there(page: str) -> None:
    messages = quoted(page)
    assert len(messages) > 3
    assert [one for one in messages if not known(one)] == []


def test_a_message_that_nobody_says_is_found_out() -> None:
    assert known("volume is in use - […]") and known("remove cargo: volume is in use - [a]")
    assert not known("the volume has sunk") and not known("port is already taken")
