"""Our registry as a pull-through cache of Debian's docker-registry; what it asks there is counted."""

import hashlib
import http.server
import json
import os
import socket
import threading
import time

import pytest

from support.own_registry import PASSWORD, USER, OwnRegistry
from support.registry import OCI_INDEX, OCI_MANIFEST, Registry, digest_of


@pytest.fixture
def upstream(tmp_path):
    with Registry(tmp_path / "upstream") as registry:
        yield registry


def asked(upstream: Registry, what: str) -> list[str]:
    return [line for line in upstream.requests() if what in line]


def settled(upstream: Registry, what: str, count: int) -> list[str]:
    """What upstream was asked, once its log (written after the answer) has come to rest."""
    deadline = time.monotonic() + 5
    while len(asked(upstream, what)) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)
    return asked(upstream, what)


def pull(cache: OwnRegistry, name: str, reference: str) -> dict[str, bytes]:
    """All of an image: digest -> bytes, verified."""
    manifest, digest = cache.manifest(name, reference)
    found = {}
    for entry in (manifest["config"], *manifest["layers"]):
        status, headers, body = cache("GET", f"{name}/blobs/{entry['digest']}")
        assert (status, len(body), digest_of(body)) == (200, entry["size"], entry["digest"])
        assert headers["docker-content-digest"] == entry["digest"]
        found[entry["digest"]] = body
    return {digest: b"", **found}


def test_pulled_once_from_upstream(tmp_path, upstream):
    digest = upstream.fill("team/app", "v1", [{"big": os.urandom(3_000_000)}, {"small": b"x"}])
    with OwnRegistry(tmp_path / "cache", "--proxy", upstream.url) as cache:
        first = pull(cache, "team/app", "v1")
        assert digest in first
        for _ in range(3):
            assert pull(cache, "team/app", "v1") == first
            assert pull(cache, "team/app", digest) == first
        assert len(settled(upstream, "GET /v2/team/app/blobs/", 3)) == 3
        assert len(asked(upstream, "GET /v2/team/app/manifests/")) == 1
        for method, path in (("POST", "team/app/blobs/uploads/"), ("PUT", "team/app/manifests/v2"),
                             ("DELETE", f"team/app/manifests/{digest}")):  # fmt: skip
            assert cache(method, path)[0] == 405
        assert cache("GET", "team/app/manifests/v9")[0] == 404
        assert cache("GET", "nobody/knows/manifests/v9")[0] == 404
        assert cache("GET", f"team/app/blobs/{digest_of(b'nothing')}")[0] == 404
        assert json.loads(cache("GET", "team/app/tags/list")[2])["tags"] == ["v1"]
        upstream.stop()
        assert pull(cache, "team/app", "v1") == first  # within the time to live nobody asks


def test_one_download_for_many(tmp_path, upstream):
    upstream.fill("team/app", "v1", [{"big": os.urandom(30_000_000)}])
    with OwnRegistry(tmp_path / "cache", "--proxy", upstream.url) as cache:
        results: list[object] = []

        def client() -> None:
            try:
                results.append(sorted(pull(cache, "team/app", "v1")))
            except BaseException as error:
                results.append(error)

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [results[0]] * 8
        assert len(settled(upstream, "GET /v2/team/app/blobs/", 2)) == 2
        assert len(asked(upstream, "GET /v2/team/app/manifests/")) == 1
        assert not list((cache.data / "uploads").iterdir())


def test_tags_move_and_outlive_upstream(tmp_path, upstream):
    upstream.fill("team/app", "v1", [{"old": b"1"}])
    with OwnRegistry(tmp_path / "cache", "--proxy", upstream.url, "--proxy-ttl", "300ms") as cache:
        old = pull(cache, "team/app", "v1")
        new_digest = upstream.fill("team/app", "v1", [{"new": b"2"}])
        time.sleep(0.4)
        new = pull(cache, "team/app", "v1")
        assert new_digest in new
        assert new != old
        upstream.stop()
        time.sleep(0.4)
        status, headers, body = cache("GET", "team/app/manifests/v1")
        assert (status, digest_of(body)) == (200, new_digest)
        assert headers["warning"].startswith("110 ")
        assert pull(cache, "team/app", "v1") == new
        began = time.monotonic()
        assert cache("GET", "team/app/manifests/v1")[0] == 200
        assert time.monotonic() - began < 2  # an upstream that is away is not asked again and again
        assert cache("GET", "team/app/manifests/v2")[0] == 502
        upstream.start()
    with OwnRegistry(tmp_path / "cache", "--proxy", upstream.url, "--proxy-ttl", "0") as cache:
        upstream("DELETE", f"team/app/manifests/{new_digest}")
        assert cache("GET", "team/app/manifests/v1")[0] == 404  # gone upstream is gone here
        assert cache.manifest("team/app", new_digest)[1] == new_digest  # what has a digest stays


def test_indexes_and_heads_and_ranges(tmp_path, upstream):
    layers = [{"data": hashlib.shake_256(b"ranges").digest(2_000_000)}]
    child = upstream.fill("team/app", "amd64", layers)
    manifest, _ = upstream.manifest("team/app", "amd64")
    size = len(upstream("GET", f"team/app/manifests/{child}", headers={"Accept": OCI_MANIFEST})[2])
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX,
             "manifests": [{"mediaType": OCI_MANIFEST, "digest": child, "size": size}]}  # fmt: skip
    upstream.put_manifest("team/app", "multi", index)
    layer = manifest["layers"][0]
    with OwnRegistry(tmp_path / "cache", "--proxy", upstream.url) as cache:
        assert cache.manifest("team/app", "multi")[0] == index
        assert cache.manifest("team/app", child)[1] == child
        status, headers, _ = cache("HEAD", f"team/app/blobs/{layer['digest']}")
        assert (status, headers["content-length"]) == (200, str(layer["size"]))
        assert not asked(upstream, "GET /v2/team/app/blobs/")  # the manifest tells the size
        part = {"Range": "bytes=1000000-1000009"}
        status, headers, body = cache("GET", f"team/app/blobs/{layer['digest']}", headers=part)
        assert (status, headers["content-range"]) == (206, f"bytes 1000000-1000009/{layer['size']}")
        whole = cache("GET", f"team/app/blobs/{layer['digest']}")[2]
        assert digest_of(whole) == layer["digest"]
        assert body == whole[1000000:1000010]
        assert (
            cache("GET", f"team/app/blobs/{layer['digest']}", headers={"Range": "bytes=9999999-"})[0] == 416
        )


def test_passwords_upstream(tmp_path):
    with Registry(tmp_path / "upstream", auth=True) as upstream:
        upstream.fill("private/app", "v1")
        (tmp_path / "password").write_text(PASSWORD + "\n")
        flags = ["--proxy-user", USER, "--proxy-password-file", str(tmp_path / "password")]
        with OwnRegistry(tmp_path / "cache", "--proxy", upstream.url, *flags) as cache:
            assert pull(cache, "private/app", "v1")
        with OwnRegistry(tmp_path / "other", "--proxy", upstream.url) as cache:
            status, _, body = cache("GET", "private/app/manifests/v1")
            assert (status, json.loads(body)["errors"][0]["code"]) == (403, "DENIED")


def test_unread_blobs_are_removed_and_come_again(tmp_path, upstream):
    upstream.fill("team/app", "v1")
    flags = ["--proxy-keep", "1s", "--gc-interval", "100ms"]
    with OwnRegistry(tmp_path / "cache", "--proxy", upstream.url, *flags) as cache:
        first = pull(cache, "team/app", "v1")
        deadline = time.monotonic() + 20
        while list((cache.data / "blobs/sha256").iterdir()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert pull(cache, "team/app", "v1") == first


def test_a_cache_killed_in_the_midst(tmp_path):
    """An upstream that hangs in the middle of a blob; the cache is killed; nothing half stays."""
    data = os.urandom(2_000_000)
    with LyingUpstream(data, stop_after=1_000_000) as upstream:
        cache = OwnRegistry(tmp_path / "cache", "--proxy", upstream.url).start()
        upstream.serve_manifest_to(cache)
        with socket.create_connection(("127.0.0.1", cache.port), 20) as client:
            client.sendall(f"GET /v2/a/b/blobs/{digest_of(data)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            got = 0
            while got < 900_000:
                got += len(client.recv(1 << 16))
        cache.kill()
        upstream.stop_after = None
        with cache.start():
            assert not list((cache.data / "uploads").iterdir())
            assert not list((cache.data / "blobs/sha256").iterdir())
            assert digest_of(cache("GET", f"a/b/blobs/{digest_of(data)}")[2]) == digest_of(data)


def test_a_blob_that_is_not_what_it_should_be(tmp_path):
    """No client gets all bytes of a blob with another digest, and it is not kept."""
    data = os.urandom(300_000)
    with (
        LyingUpstream(data, lie=True) as upstream,
        OwnRegistry(tmp_path / "cache", "--proxy", upstream.url) as cache,
    ):
        upstream.serve_manifest_to(cache)
        with socket.create_connection(("127.0.0.1", cache.port), 20) as client:
            client.sendall(f"GET /v2/a/b/blobs/{digest_of(data)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
        assert len(answer.partition(b"\r\n\r\n")[2]) < len(data)
        assert not list((cache.data / "blobs/sha256").iterdir())
        assert not list((cache.data / "uploads").iterdir())


class LyingUpstream:
    """A registry with one image whose layer breaks off, or is another one than its digest says."""

    def __init__(self, layer: bytes, stop_after: int | None = None, lie: bool = False) -> None:
        self.layer, self.stop_after = layer, stop_after
        config = b"{}"
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                           "digest": digest_of(config), "size": 2},
                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar",
                            "digest": digest_of(layer), "size": len(layer)}],
            }
        ).encode()  # fmt: skip
        outer, self.hold = self, threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                is_blob = "/blobs/" in self.path
                body = outer.layer if is_blob else outer.manifest if "/manifests/" in self.path else b"{}"
                if is_blob and lie:
                    body = bytes(len(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream" if is_blob else OCI_MANIFEST)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                if is_blob and outer.stop_after:
                    self.wfile.write(body[: outer.stop_after])
                    self.wfile.flush()
                    outer.hold.wait(30)
                    self.close_connection = True
                    return
                self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def serve_manifest_to(self, cache: OwnRegistry) -> None:
        assert cache("GET", "a/b/manifests/v1")[2] == self.manifest

    def __enter__(self) -> "LyingUpstream":
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
