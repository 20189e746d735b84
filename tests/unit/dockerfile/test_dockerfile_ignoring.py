"""`.dockerignore`: which paths its patterns leave out, and what is packed of a directory."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from sampan.cli.building.context import pack
from sampan.cli.failures import CommandError
from sampan.dockerfile.ignoring import Ignored
from sampan.errors import InvalidParameter


@pytest.mark.parametrize(
    ("text", "out", "kept"),
    [
        ("", [], ["a"]),
        ("# a\n\n a \n", ["a", "a/b"], ["b", "b/a", "ab"]),
        ("/a/\n", ["a", "a/b"], ["b/a"]),
        ("*.md\n!README.md", ["x.md"], ["README.md", "d/x.md"]),
        ("**/*.md\n!**/keep/**", ["x.md", "d/e/x.md"], ["keep/x.md", "d/keep/e/x.md"]),
        ("d\n!d/e\nd/e/f", ["d/x", "d/e/f", "d"], ["d/e/g"]),
        ("*/temp*", ["a/temp", "a/temporary/b"], ["temp", "a/b/temp"]),
        ("te?t\n[a-c]x", ["test", "ax"], ["tet", "te/t", "dx"]),
        ("**", ["a", "a/b"], []),
        ("a/**", ["a/b", "a/b/c"], ["a"]),
        ("**/b", ["b", "a/b", "a/c/b/d"], ["ab"]),
        ("./a/../b", ["b"], ["a"]),
        ("\\*\na.b\nx+y", ["*", "a.b", "x+y"], ["a", "aXb", "xxy"]),
        ("a\n!a", [], ["a", "a/b"]),
        ("*\n!a", ["b", "b/a"], ["a", "a/b"]),
    ],
)
def test_the_last_pattern_that_matches_decides(text: str, out: list[str], kept: list[str]) -> None:
    ignored = Ignored(text)
    assert [path for path in out + kept if ignored.excludes(path)] == out


def test_what_cannot_be_a_pattern() -> None:
    for text in ("!", "a\n! "):
        with pytest.raises(InvalidParameter, match="illegal exclusion pattern"):
            Ignored(text)


def names(directory: Path, dockerfile: str = "Dockerfile", text: bytes | None = None) -> list[str]:
    data = io.BytesIO(b"".join(pack(str(directory), dockerfile, text)))
    with tarfile.open(fileobj=data) as archive:
        found = archive.getmembers()
    assert all((one.uid, one.gid) == (0, 0) for one in found)
    return [one.name.rstrip("/") for one in found]


def test_what_is_packed(tmp_path: Path) -> None:
    for name in ("Dockerfile", "a", "d/b", "d/e/c", "out/x", "deep/no/x", "deep/yes/x", "own/Dockerfile"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to("/etc")
    os.link(tmp_path / "a", tmp_path / "hard")
    ignore = tmp_path / ".dockerignore"
    assert set(names(tmp_path)) >= {"Dockerfile", "a", "hard", "d", "d/e/c", "link", "out/x"}
    ignore.write_text("out\nDockerfile\n.dockerignore\ndeep\n!deep/yes\nown\n")
    assert names(tmp_path) == [
        *(".dockerignore", "Dockerfile", "a", "d", "d/b", "d/e", "d/e/c", "deep/yes", "deep/yes/x", "hard"),
        "link",
    ]
    assert "own/Dockerfile" in names(tmp_path, "own/Dockerfile")
    # one from elsewhere takes no other's place, and the daemon is told to leave it out
    found = names(tmp_path, ".dockerfile.x", b"FROM x")
    assert found[:2] == [".dockerfile.x", ".dockerignore"] and found.count(".dockerignore") == 1
    ignore.write_text("!\n")
    with pytest.raises(CommandError, match="illegal exclusion pattern"):
        names(tmp_path)
