"""Which path a pattern takes, and what its parameter is then."""

import pytest

from sampan.http import Router, Routes


def _router(*patterns):
    routes = Routes()
    for pattern in patterns:
        routes.get(pattern)(pattern)
    return Router([routes])


@pytest.mark.parametrize(
    ("pattern", "path", "value"),
    [
        ("/networks/{id}", "/networks/a", "a"),
        ("/networks/{id}", "/networks/a b\n", "a b\n"),
        ("/networks/{id}", "/networks/a/b", None),
        ("/networks/{id}", "/networks/", None),
        ("/networks/{id}", "/networks/a/", None),
        ("/networks/{id}/connect", "/networks/a/connect", "a"),
        ("/networks/{id}/connect", "/networks/connect", None),
        ("/networks/{id}/connect", "/networks//connect", None),
        ("/networks/{id}/connect", "/networks/a/b/connect", None),
        ("/networks/{id}/connect", "/networks/a/connect/connect", None),
        ("/containers/{id}/json", "/containers/a/json", "a"),
        ("/containers/{id}/json", "/containers/a/b/json", "a/b"),
        ("/containers/{id}/json", "/containers/a/b/c/json", None),
        ("/containers/{id}/json", "/containers//b/json", None),
        ("/containers/{id}/json", "/containers/json", None),
        ("/images/{name:path}/json", "/images/h:5/a/b:c/json", "h:5/a/b:c"),
        ("/images/{name:path}/json", "/images//json/json", "/json"),
        ("/images/{name:path}/json", "/images/json", None),
        ("/images/{name:path}/json", "/images//json", None),
        ("/{name}", "/a", "a"),
    ],
)
def test_a_pattern_takes_its_paths_alone(pattern, path, value):
    found = _router(pattern).match("GET", path)
    assert (None if found is None else list(found[1].values())) == (None if value is None else [value])


def test_whole_paths_come_first_then_the_order():
    router = _router("/a/{x:path}", "/a/{x}/b", "/a/c")
    assert router.match("GET", "/a/c") == ("/a/c", {})
    assert router.match("GET", "/a/c/b") == ("/a/{x:path}", {"x": "c/b"})
    assert router.match("POST", "/a/c") is None
    assert router.match("GET", "a") is None


@pytest.mark.parametrize("patterns", [("/a", "/a"), ("/a/{x}", "/a/{x}"), ("/a/{x}/{y}",), ("/a/{x:int}",)])
def test_what_cannot_be_told_apart_or_read_is_refused(patterns):
    with pytest.raises(ValueError, match=r"twice|one parameter"):
        _router(*patterns)
