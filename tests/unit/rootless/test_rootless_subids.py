"""Subordinate ids: whose they are, and the map made of them."""

from pathlib import Path

from sampan.rootless import subids


def test_ranges_of_one_user_among_others(tmp_path: Path) -> None:
    file = tmp_path / "subuid"
    file.write_text("ann:100000:65536\nbob:300000:10\n# none\n1000:400000:5\nbob:x:1\nbob:500:0\n")
    assert subids._ranges(str(file), {"bob", "1000"}) == ((300000, 10), (400000, 5))
    assert subids._ranges(str(tmp_path / "none"), {"bob"}) == ()


def test_the_user_is_root_and_the_others_follow() -> None:
    assert subids.lines(1000, [(300000, 10), (400000, 5)]) == [(0, 1000, 1), (1, 300000, 10), (11, 400000, 5)]
