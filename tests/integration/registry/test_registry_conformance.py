"""The distribution protocol over plain HTTP, asked of our registry and of Debian's docker-registry alike.

Where the specification (OCI distribution 1.1) leaves no difference both must pass, which proves the
questions; what the older registry does not know, or does otherwise, is asked of ours alone (`own`).
"""

from __future__ import annotations

import hashlib
import http.client
import itertools
import json
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from support.own_registry import OwnRegistry
from support.registry import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, Registry, digest_of

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
NOTHING = digest_of(b"what nobody ever pushed")
_names = itertools.count(1)


@pytest.fixture(scope="module", params=["sampan", "docker-registry"])
def registry(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    with OwnRegistry(directory) if request.param == "sampan" else Registry(directory) as started:
        yield started


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    with OwnRegistry(tmp_path_factory.mktemp("own")) as started:
        yield started


@pytest.fixture
def name():
    """A repository of the test's own."""
    return f"conformance/test-{next(_names)}"


def path_of(location: str) -> str:
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def with_digest(location: str, digest: str) -> str:
    path = path_of(location)
    return f"{path}{'&' if '?' in path else '?'}digest={quote(digest)}"


def codes(body: bytes) -> list[str]:
    errors = json.loads(body)["errors"]
    assert all(isinstance(error["message"], str) for error in errors)
    return [error["code"] for error in errors]


def begin(registry, name) -> str:
    status, headers, _ = registry("POST", f"{name}/blobs/uploads/", headers={"Content-Length": "0"})
    assert status == 202
    return path_of(headers["location"])


def image(registry, name, **members: Any) -> dict[str, Any]:
    """A manifest of an empty image; its blobs are there."""
    config = registry.put_blob(name, b"{}")
    layer = registry.put_blob(name, b"layer of " + name.encode())
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config, "size": 2},
        "layers": [{"mediaType": OCI_LAYER_GZIP, "digest": layer, "size": 9 + len(name)}],
        **members,
    }


# --- base ---


def test_version_check(registry):
    status, headers, _ = registry("GET", "/v2/")
    assert status == 200
    assert headers["docker-distribution-api-version"] == "registry/2.0"


# --- pull ---


def test_blob(registry, name):
    data = bytes(range(256)) * 1000
    digest = registry.put_blob(name, data)
    status, headers, body = registry("GET", f"{name}/blobs/{digest}")
    assert (status, body) == (200, data)
    assert headers["docker-content-digest"] == digest
    assert headers["content-type"] == "application/octet-stream"
    status, headers, body = registry("HEAD", f"{name}/blobs/{digest}")
    assert (status, body, headers["content-length"]) == (200, b"", "256000")
    assert headers["docker-content-digest"] == digest


def test_empty_blob(registry, name):
    digest = registry.put_blob(name, b"")
    status, headers, body = registry("GET", f"{name}/blobs/{digest}")
    assert (status, body, headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-0", 0, 0), ("bytes=10-19", 10, 19), ("bytes=990-", 990, 999), ("bytes=-5", 995, 999),
     ("bytes=500-5000", 500, 999)],
)  # fmt: skip
def test_blob_range(registry, name, asked, first, last):
    data = hashlib.shake_256(b"range").digest(1000)
    digest = registry.put_blob(name, data)
    status, headers, body = registry("GET", f"{name}/blobs/{digest}", headers={"Range": asked})
    assert (status, body) == (206, data[first : last + 1])
    assert headers["content-range"] == f"bytes {first}-{last}/1000"
    assert headers["content-length"] == str(last - first + 1)


def test_blob_range_beyond_the_end(own, name):
    digest = own.put_blob(name, b"short")
    status, headers, _ = own("GET", f"{name}/blobs/{digest}", headers={"Range": "bytes=5-"})
    assert (status, headers["content-range"]) == (416, "bytes */5")


def test_blob_not_modified(registry, name):
    digest = registry.put_blob(name, b"the same again")
    etag = registry("GET", f"{name}/blobs/{digest}")[1]["etag"]
    status, _, body = registry("GET", f"{name}/blobs/{digest}", headers={"If-None-Match": etag})
    assert (status, body) == (304, b"")
    status, _, body = registry("GET", f"{name}/blobs/{digest}", headers={"If-None-Match": '"other"'})
    assert (status, body) == (200, b"the same again")


def test_unknown_blob(registry, name):
    registry.put_blob(name, b"something else")
    status, _, body = registry("GET", f"{name}/blobs/{NOTHING}")
    assert (status, codes(body)) == (404, ["BLOB_UNKNOWN"])
    status, _, body = registry("HEAD", f"{name}/blobs/{NOTHING}")
    assert (status, body) == (404, b"")


def test_blob_of_another_repository(registry, name):
    digest = registry.put_blob(name, b"mine alone: " + name.encode())
    registry.put_blob(f"{name}/other", b"x")
    assert registry("GET", f"{name}/other/blobs/{digest}")[0] == 404


def test_manifest(registry, name):
    data = json.dumps(image(registry, name), indent=3).encode()
    digest = registry.put_manifest(name, "v1", data)
    assert digest == digest_of(data)
    for reference in ("v1", digest):
        status, headers, body = registry(
            "GET", f"{name}/manifests/{reference}", headers={"Accept": OCI_MANIFEST}
        )
        assert (status, body) == (200, data)
        assert headers["content-type"] == OCI_MANIFEST
        assert headers["docker-content-digest"] == digest
        status, headers, body = registry(
            "HEAD", f"{name}/manifests/{reference}", headers={"Accept": OCI_MANIFEST}
        )
        assert (status, body, headers["content-length"]) == (200, b"", str(len(data)))
        assert headers["docker-content-digest"] == digest


def test_manifest_not_modified(registry, name):
    digest = registry.put_manifest(name, "v1", image(registry, name))
    accept = {"Accept": OCI_MANIFEST, "If-None-Match": f'"{digest}"'}
    assert registry("GET", f"{name}/manifests/v1", headers=accept)[0] == 304


def test_docker_manifest_and_list(registry, name):
    manifest = image(registry, name, mediaType=DOCKER_MANIFEST)
    data = json.dumps(manifest).encode()
    child = registry.put_manifest(name, digest_of(data), data)
    entry = {"mediaType": DOCKER_MANIFEST, "digest": child, "size": len(data),
             "platform": {"os": "linux", "architecture": "amd64"}}  # fmt: skip
    listed = {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry]}
    digest = registry.put_manifest(name, "multi", listed)
    status, headers, body = registry("GET", f"{name}/manifests/multi", headers={"Accept": DOCKER_LIST})
    assert (status, headers["content-type"], json.loads(body)) == (200, DOCKER_LIST, listed)
    assert headers["docker-content-digest"] == digest


def test_index(registry, name):
    data = json.dumps(image(registry, name)).encode()
    child = registry.put_manifest(name, digest_of(data), data)
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX,
             "manifests": [{"mediaType": OCI_MANIFEST, "digest": child, "size": len(data)}]}  # fmt: skip
    registry.put_manifest(name, "multi", index)
    status, headers, body = registry("GET", f"{name}/manifests/multi", headers={"Accept": OCI_INDEX})
    assert (status, headers["content-type"], json.loads(body)) == (200, OCI_INDEX, index)


def test_unknown_manifest(registry, name):
    registry.put_manifest(name, "v1", image(registry, name))
    for reference in ("v2", NOTHING):
        status, _, body = registry("GET", f"{name}/manifests/{reference}")
        assert (status, codes(body)) == (404, ["MANIFEST_UNKNOWN"])
        assert registry("HEAD", f"{name}/manifests/{reference}")[0] == 404
    assert registry("GET", "never/pushed/manifests/v1")[0] == 404


# --- push ---


def test_upload_post_put(registry, name):
    data = b"post and put"
    location = begin(registry, name)
    digest = digest_of(data)
    status, headers, _ = registry(
        "PUT", with_digest(location, digest), data, {"Content-Type": "application/octet-stream"}
    )
    assert (status, headers["docker-content-digest"]) == (201, digest)
    assert registry("GET", path_of(headers["location"]))[2] == data


def test_upload_in_one_post(own, name):
    data = b"in one request"
    status, headers, _ = own("POST", f"{name}/blobs/uploads/?digest={digest_of(data)}", data)
    assert status == 201
    assert own("GET", path_of(headers["location"]))[2] == data
    status, _, body = own("POST", f"{name}/blobs/uploads/?digest={NOTHING}", data)
    assert (status, codes(body)) == (400, ["DIGEST_INVALID"])


def test_upload_in_chunks(registry, name):
    chunks = [b"a" * 1000, b"b" * 500, b"c"]
    location, sent = begin(registry, name), 0
    for chunk in chunks:
        status, headers, _ = registry(
            "PATCH", location, chunk,
            {"Content-Type": "application/octet-stream", "Content-Range": f"{sent}-{sent + len(chunk) - 1}"},
        )  # fmt: skip
        sent += len(chunk)
        assert (status, headers["range"]) == (202, f"0-{sent - 1}")
        location = path_of(headers["location"])
        status, headers, _ = registry("GET", location)
        assert (status, headers["range"]) == (204, f"0-{sent - 1}")
    digest = digest_of(b"".join(chunks))
    assert registry("PUT", with_digest(location, digest))[0] == 201
    assert registry("GET", f"{name}/blobs/{digest}")[2] == b"".join(chunks)


def test_upload_last_chunk_with_put(registry, name):
    location = begin(registry, name)
    _, headers, _ = registry("PATCH", location, b"first", {"Content-Range": "0-4"})
    digest = digest_of(b"firstlast")
    status, _, _ = registry(
        "PUT", with_digest(headers["location"], digest), b"last", {"Content-Range": "5-8"}
    )
    assert status == 201
    assert registry("GET", f"{name}/blobs/{digest}")[2] == b"firstlast"


def test_upload_streamed(registry, name):
    """PATCH without a length, as docker pushes."""
    location = begin(registry, name)
    connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=30)
    connection.request("PATCH", location, iter([b"x" * 70_000, b"y"]), encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, answer.headers["range"]) == (202, "0-70000")
    location = answer.headers["location"]
    connection.close()
    digest = digest_of(b"x" * 70_000 + b"y")
    assert registry("PUT", with_digest(location, digest))[0] == 201


def test_chunk_out_of_order(own, name):
    location = begin(own, name)
    status, headers, _ = own("PATCH", location, b"0123456789", {"Content-Range": "0-9"})
    location = path_of(headers["location"])
    for wrong in ("5-14", "11-20", "0-9"):
        status, headers, _ = own("PATCH", location, b"0123456789", {"Content-Range": wrong})
        assert status == 416, wrong
        assert headers["range"] == "0-9"
    status, headers, _ = own("GET", location)
    assert (status, headers["range"]) == (204, "0-9")
    status, headers, _ = own("PATCH", path_of(headers["location"]), b"ab", {"Content-Range": "10-11"})
    assert (status, headers["range"]) == (202, "0-11")


def test_upload_cancelled(registry, name):
    location = begin(registry, name)
    assert registry("DELETE", location)[0] == 204
    status, _, body = registry("GET", location)
    assert (status, codes(body)) == (404, ["BLOB_UPLOAD_UNKNOWN"])
    assert registry("PATCH", location, b"x")[0] == 404


def test_upload_with_another_digest(registry, name):
    location = begin(registry, name)
    status, _, body = registry("PUT", with_digest(location, NOTHING), b"not that")
    assert (status, codes(body)) == (400, ["DIGEST_INVALID"])
    assert registry("HEAD", f"{name}/blobs/{NOTHING}")[0] == 404
    assert registry("HEAD", f"{name}/blobs/{digest_of(b'not that')}")[0] == 404


def test_upload_without_digest(registry, name):
    status, _, body = registry("PUT", begin(registry, name), b"of what?")
    assert (status, codes(body)) == (400, ["DIGEST_INVALID"])


def test_mount(registry, name):
    digest = registry.put_blob(name, b"to be mounted into other places")
    status, headers, _ = registry("POST", f"{name}/there/blobs/uploads/?mount={digest}&from={name}")
    assert (status, headers["docker-content-digest"]) == (201, digest)
    assert registry("GET", path_of(headers["location"]))[2] == b"to be mounted into other places"


def test_mount_of_nothing_begins_an_upload(registry, name):
    registry.put_blob(name, b"x")
    status, headers, _ = registry("POST", f"{name}/there/blobs/uploads/?mount={NOTHING}&from={name}")
    assert status == 202
    assert registry("GET", path_of(headers["location"]))[0] == 204


def test_sha512(own, name):
    data = b"longer digests"
    digest = "sha512:" + hashlib.sha512(data).hexdigest()
    assert own("PUT", with_digest(begin(own, name), digest), data)[0] == 201
    assert own("GET", f"{name}/blobs/{digest}")[2] == data


def test_manifest_that_names_what_is_not_there(registry, name):
    manifest = image(registry, name)
    manifest["layers"][0]["digest"] = NOTHING
    status, _, body = registry(
        "PUT", f"{name}/manifests/v1", json.dumps(manifest).encode(), {"Content-Type": OCI_MANIFEST}
    )
    assert status in (400, 404)
    assert "MANIFEST_BLOB_UNKNOWN" in codes(body)
    assert registry("GET", f"{name}/manifests/v1")[0] == 404


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"schemaVersion":2}', b"\xff\xfe", b"[" * 100_000, b"null"], ids=range(7)
)
def test_manifest_that_is_none(registry, name, data):
    if data in (b'{"schemaVersion":2}', b"null") and not isinstance(registry, OwnRegistry):
        pytest.skip("docker-registry 2.8 answers DIGEST_INVALID, and 500")
    registry.put_blob(name, b"x")
    status, _, body = registry("PUT", f"{name}/manifests/v1", data, {"Content-Type": OCI_MANIFEST})
    assert (status, codes(body)[0]) == (400, "MANIFEST_INVALID")


def test_manifest_under_another_digest(registry, name):
    data = json.dumps(image(registry, name)).encode()
    status, _, body = registry("PUT", f"{name}/manifests/{NOTHING}", data, {"Content-Type": OCI_MANIFEST})
    assert (status, codes(body)) == (400, ["DIGEST_INVALID"])


def test_moving_a_tag(registry, name):
    first = registry.put_manifest(name, "v1", image(registry, name))
    second = registry.put_manifest(name, "v1", image(registry, name, annotations={"is": "new"}))
    accept = {"Accept": OCI_MANIFEST}
    assert registry("HEAD", f"{name}/manifests/v1", headers=accept)[1]["docker-content-digest"] == second
    assert registry("HEAD", f"{name}/manifests/{first}", headers=accept)[0] == 200


def test_ambiguous_manifests(own, name):
    """CVE-2021-41190: nobody may take one document for two things."""
    manifest = image(own, name)
    both = {**manifest, "manifests": []}
    for kind, document in ((OCI_MANIFEST, both), (OCI_INDEX, manifest), (DOCKER_MANIFEST, manifest)):
        status, _, body = own(
            "PUT", f"{name}/manifests/v1", json.dumps(document).encode(), {"Content-Type": kind}
        )
        assert (status, codes(body)) == (400, ["MANIFEST_INVALID"])


# --- content discovery ---


def test_tags(registry, name):
    manifest = image(registry, name)
    for tag in ("b", "A", "a", "c", "1"):
        registry.put_manifest(name, tag, manifest)
    status, _, body = registry("GET", f"{name}/tags/list")
    assert (status, json.loads(body)["name"]) == (200, name)
    assert sorted(json.loads(body)["tags"]) == ["1", "A", "a", "b", "c"]
    status, _, body = registry("GET", f"{name}/nothing-here/tags/list")
    assert (status, codes(body)) == (404, ["NAME_UNKNOWN"])


def test_tags_by_pages(own, name):
    manifest = image(own, name)
    for tag in ("b", "A", "a", "c", "1"):
        own.put_manifest(name, tag, manifest)
    pages, path = [], f"{name}/tags/list?n=2"
    while path:
        _, headers, body = own("GET", path)
        pages.append(json.loads(body)["tags"])
        link = headers.get("link", "")
        assert not link or link.endswith('>; rel="next"')
        path = link[1 : link.index(">")] if link else ""
    assert pages == [["1", "A"], ["a", "b"], ["c"]]
    assert json.loads(own("GET", f"{name}/tags/list?n=0")[2])["tags"] == []
    assert json.loads(own("GET", f"{name}/tags/list?last=a")[2])["tags"] == ["b", "c"]
    assert own("GET", f"{name}/tags/list?n=-1")[0] == 400


def test_catalog_by_pages(registry):
    for repository in ("catalog/b", "catalog/a", "catalog/c"):
        registry.fill(repository, "v1")
    found, path = [], "_catalog?n=1"
    while path:
        status, headers, body = registry("GET", path)
        assert status == 200
        page = json.loads(body)["repositories"]
        assert len(page) <= 1
        found += page
        link = headers.get("link", "")
        path = path_of(link[1 : link.index(">")]) if link else ""
    assert [one for one in found if one.startswith("catalog/")] == ["catalog/a", "catalog/b", "catalog/c"]
    assert found == sorted(found)


def test_referrers(own, name):
    subject_document = json.dumps(image(own, name)).encode()
    subject = own.put_manifest(name, "v1", subject_document)
    status, headers, body = own("GET", f"{name}/referrers/{subject}")
    assert (status, headers["content-type"], json.loads(body)["manifests"]) == (200, OCI_INDEX, [])
    about = {"mediaType": OCI_MANIFEST, "digest": subject, "size": len(subject_document)}
    signature = image(own, name, subject=about, artifactType="test/signature", annotations={"by": "me"})
    data = json.dumps(signature).encode()
    status, headers, _ = own(
        "PUT", f"{name}/manifests/{digest_of(data)}", data, {"Content-Type": OCI_MANIFEST}
    )
    assert (status, headers["oci-subject"]) == (201, subject)
    own.put_manifest(name, "sbom", image(own, name, subject=about))  # its type is its config's
    status, headers, body = own("GET", f"{name}/referrers/{subject}")
    assert "oci-filters-applied" not in headers
    found = json.loads(body)
    assert (found["schemaVersion"], found["mediaType"]) == (2, OCI_INDEX)
    assert [entry["artifactType"] for entry in found["manifests"]] == ["test/signature", OCI_CONFIG]
    assert found["manifests"][0] == {
        "mediaType": OCI_MANIFEST, "digest": digest_of(data), "size": len(data),
        "artifactType": "test/signature", "annotations": {"by": "me"},
    }  # fmt: skip
    status, headers, body = own("GET", f"{name}/referrers/{subject}?artifactType=test/signature")
    assert headers["oci-filters-applied"] == "artifactType"
    assert [entry["digest"] for entry in json.loads(body)["manifests"]] == [digest_of(data)]
    assert own("DELETE", f"{name}/manifests/{digest_of(data)}")[0] == 202
    assert len(json.loads(own("GET", f"{name}/referrers/{subject}")[2])["manifests"]) == 1


def test_subject_that_is_not_there_yet(own, name):
    about = {"mediaType": OCI_MANIFEST, "digest": NOTHING, "size": 1}
    digest = own.put_manifest(name, "early", image(own, name, subject=about))
    listed = json.loads(own("GET", f"{name}/referrers/{NOTHING}")[2])["manifests"]
    assert [entry["digest"] for entry in listed] == [digest]
    assert own("GET", f"never/pushed/referrers/{NOTHING}")[0] == 200


def test_referrers_by_pages(own, name):
    about = {"mediaType": OCI_MANIFEST, "digest": digest_of(name.encode()), "size": 1}
    first = image(own, name, subject=about)
    for number in range(1003):
        own.put_manifest(name, "all", {**first, "annotations": {"n": str(number)}})
    seen, path = [], f"{name}/referrers/{about['digest']}"
    while path:
        _, headers, body = own("GET", path)
        seen.append(len(json.loads(body)["manifests"]))
        link = headers.get("link", "")
        path = link[1 : link.index(">")] if link else ""
    assert seen == [1000, 3]


# --- content management ---


def test_delete_manifest(registry, name):
    digest = registry.put_manifest(name, "v1", image(registry, name))
    accept = {"Accept": OCI_MANIFEST}
    assert registry("DELETE", f"{name}/manifests/{digest}")[0] == 202
    assert registry("GET", f"{name}/manifests/{digest}", headers=accept)[0] == 404
    assert registry("GET", f"{name}/manifests/v1", headers=accept)[0] == 404
    status, _, body = registry("DELETE", f"{name}/manifests/{NOTHING}")
    assert (status, codes(body)) == (404, ["MANIFEST_UNKNOWN"])


def test_delete_tag(own, name):
    digest = own.put_manifest(name, "v1", image(own, name))
    own.put_manifest(name, "v2", image(own, name))
    assert own("DELETE", f"{name}/manifests/v1")[0] == 202
    assert own("GET", f"{name}/manifests/v1")[0] == 404
    assert own("GET", f"{name}/manifests/{digest}")[0] == 200
    assert json.loads(own("GET", f"{name}/tags/list")[2])["tags"] == ["v2"]
    assert own("DELETE", f"{name}/manifests/v1")[0] == 404


def test_delete_blob(registry, name):
    digest = registry.put_blob(name, b"to be deleted")
    registry.put_blob(f"{name}/other", b"to be deleted")
    status, _, _ = registry("DELETE", f"{name}/blobs/{digest}")
    assert status == 202
    assert registry("GET", f"{name}/blobs/{digest}")[0] == 404
    assert registry("GET", f"{name}/other/blobs/{digest}")[0] == 200
    status, _, body = registry("DELETE", f"{name}/blobs/{NOTHING}")
    assert (status, codes(body)) == (404, ["BLOB_UNKNOWN"])


# --- what is wrong in the path or the method ---


@pytest.mark.parametrize("wrong", ["UPPER/case", "a..b", "-a", "a/", "a//b", "%2e%2e/%2e%2e/etc", "a" * 300])
def test_invalid_names(own, wrong):
    for method, path in (("GET", "manifests/v1"), ("POST", "blobs/uploads/"), ("GET", "tags/list")):
        status, _, body = own(method, f"/v2/{wrong}/{path}")
        assert (status, codes(body)) == (400, ["NAME_INVALID"]), (method, path)


@pytest.mark.parametrize(
    "wrong", ["sha256:abc", "sha256:" + "G" * 64, "md5:" + "0" * 32, "sha256:..%2f..%2fx"]
)
def test_invalid_digests(own, name, wrong):
    status, _, body = own("GET", f"/v2/{name}/blobs/{quote(wrong, safe='')}")
    assert (status, codes(body)) == (400, ["DIGEST_INVALID"])


def test_invalid_tags(own, name):
    for wrong in (".hidden", "-x", "a" * 129, "sp%20ace"):
        status, _, body = own("GET", f"/v2/{name}/manifests/{wrong}")
        assert (status, codes(body)) == (400, ["TAG_INVALID"])


def test_methods_that_do_not_fit(registry, name):
    for method, path in (("POST", f"{name}/manifests/v1"), ("PUT", f"{name}/tags/list")):
        assert registry(method, path)[0] == 405


def test_unknown_paths(registry):
    for path in ("/v2/nothing", "/v2/a/b/c", "/v3/", "/v2/x/manifests"):
        assert registry("GET", path if path.startswith("/v2/") else f"/v2/..{path}")[0] in (404, 400, 301)
