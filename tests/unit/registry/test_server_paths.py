"""Paths to endpoints, names, ranges: the registry's grammar."""

import pytest

from sampan.registry.server.access import Wanted
from sampan.registry.server.app import wanted
from sampan.registry.server.faults import DigestInvalid, NameInvalid, TagInvalid, UploadInvalid
from sampan.registry.server.names import check_digest, check_name, check_reference, is_digest
from sampan.registry.server.ranges import Unsatisfiable, chunk_range, is_unchanged, wanted_range
from sampan.registry.server.routing import Target, find

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/", Target("front-page")),
        ("/v2", Target("base")),
        ("/v2/", Target("base")),
        ("/v2/_catalog", Target("catalog")),
        ("/v2/a/tags/list", Target("tags", "a")),
        ("/v2/a/b/c/tags/list", Target("tags", "a/b/c")),
        ("/v2/a/manifests/latest", Target("manifest", "a", "latest")),
        ("/v2/manifests/manifests/manifests", Target("manifest", "manifests", "manifests")),
        ("/v2/tags/list/manifests/v1", Target("manifest", "tags/list", "v1")),
        (f"/v2/a/b/blobs/{DIGEST}", Target("blob", "a/b", DIGEST)),
        ("/v2/a/blobs/uploads/", Target("uploads", "a")),
        ("/v2/a/blobs/uploads", Target("uploads", "a")),
        ("/v2/blobs/uploads/blobs/uploads/", Target("uploads", "blobs/uploads")),
        ("/v2/a/blobs/uploads/some-id", Target("upload", "a", "some-id")),
        (f"/v2/a/referrers/{DIGEST}", Target("referrers", "a", DIGEST)),
        ("/repository/a/b", Target("repository-page", "a/b")),
        ("/v1/search", Target("search")),
    ],
)
def test_endpoints(path, target):
    assert find(path) == target


@pytest.mark.parametrize(
    "path", ["/v3/", "/v2/a", "/v2/a/b/c", "/v2/a/tags", "/v2/a/tags/lists", "", "x", "/v1/"]
)
def test_no_endpoint(path):
    assert find(path) is None


def test_what_requests_are_going_to_do():
    pull, push = Wanted("repository", "a", "pull"), Wanted("repository", "a", "push")
    assert wanted(Target("manifest", "a", "v1"), "GET") == [pull]
    assert wanted(Target("manifest", "a", "v1"), "PUT") == [pull, push]
    assert wanted(Target("manifest", "a", "v1"), "DELETE") == [Wanted("repository", "a", "delete")]
    assert wanted(Target("blob", "a", "v1"), "DELETE") == [Wanted("repository", "a", "delete")]
    assert wanted(Target("uploads", "a"), "POST") == [pull, push]
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        assert wanted(Target("upload", "a", "x"), method) == [pull, push]
    assert wanted(Target("catalog"), "GET") == [Wanted("registry", "catalog", "*")]
    assert wanted(Target("front-page"), "GET") == [Wanted("registry", "catalog", "*")]
    assert wanted(Target("base"), "GET") == []


def test_names():
    for good in ("a", "a/b", "a.b/c_d", "a__b", "a---b", "0", "a" * 255):
        assert check_name(good) == good
    for bad in (
        "",
        "A",
        "a/",
        "/a",
        "a//b",
        "..",
        "a/..",
        "a/.b",
        "a..b",
        "a___b",
        "-a",
        "a" * 256,
        "a\n",
        "ä",
    ):
        with pytest.raises(NameInvalid):
            check_name(bad)


def test_references():
    for good in ("latest", "v1.0-rc_1", "_x", "A" * 128, DIGEST, "sha512:" + "f" * 128):
        assert check_reference(good) == good
    for bad in ("", ".x", "-x", "a" * 129, "a/b", "a b", "latest\n"):
        with pytest.raises(TagInvalid):
            check_reference(bad)
    for bad in ("sha256:0", "md5:" + "0" * 32, "sha256:" + "0" * 63 + "G", "sha512:" + "0" * 64):
        with pytest.raises(DigestInvalid):
            check_reference(bad)
        with pytest.raises(DigestInvalid):
            check_digest(bad)
        assert not is_digest(bad)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-9", (0, 9)), ("bytes=5-", (5, 99)), ("bytes=-10", (90, 99)), ("bytes=-1000", (0, 99)),
        ("bytes=0-1000", (0, 99)), ("bytes = 1 - 2", (1, 2)), ("bytes=99-99", (99, 99)),
        ("bytes=0-1,3-4", None), ("lines=0-1", None), ("bytes=9-5", None), ("bytes=-", None), ("x", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)  # fmt: skip
def test_ranges(header, expected):
    assert wanted_range({"range": header}, 100, '"x"') == expected


def test_ranges_that_cannot_be():
    for header in ("bytes=100-", "bytes=100-200", "bytes=-0"):
        with pytest.raises(Unsatisfiable):
            wanted_range({"range": header}, 100, '"x"')
    with pytest.raises(Unsatisfiable):
        wanted_range({"range": "bytes=-5"}, 0, '"x"')


def test_if_range_and_if_none_match():
    assert wanted_range({"range": "bytes=0-1", "if-range": '"x"'}, 100, '"x"') == (0, 1)
    assert wanted_range({"range": "bytes=0-1", "if-range": '"y"'}, 100, '"x"') is None
    assert is_unchanged({"if-none-match": '"x"'}, '"x"')
    assert is_unchanged({"if-none-match": '"a", W/"x"'}, '"x"')
    assert is_unchanged({"if-none-match": "*"}, '"x"')
    assert not is_unchanged({"if-none-match": '"y"'}, '"x"')
    assert not is_unchanged({}, '"x"')


def test_chunks():
    assert chunk_range("0-9") == (0, 9)
    assert chunk_range("bytes 10-19/100") == (10, 19)
    for bad in ("9-0", "a-b", "0-", "-5", "", "0-9,10-11"):
        with pytest.raises(UploadInvalid):
            chunk_range(bad)
