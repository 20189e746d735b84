"""Hostile clients of the registry: each is refused, nothing of it is kept, the next client is served."""

from __future__ import annotations

import contextlib
import hashlib
import html.parser
import http.client
import json
import os
import socket
import time
from pathlib import Path

import pytest

from sampan.registry.server import bodies
from support.own_registry import OwnRegistry
from support.registry import OCI_CONFIG, OCI_MANIFEST, digest_of


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with OwnRegistry(tmp_path_factory.mktemp("attacked"), "--max-blob", "8m") as started:
        started.fill("good/image", "v1")
        yield started


@pytest.fixture(autouse=True)
def _still_served(registry):
    before = memory_bytes(registry)
    yield
    assert registry.manifest("good/image", "v1")
    assert memory_bytes(registry) - before < 150 << 20


def memory_bytes(registry: OwnRegistry) -> int:
    status = Path(f"/proc/{registry.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) << 10


def raw(registry: OwnRegistry, data: bytes) -> bytes:
    """What is answered to these bytes, until the connection is closed."""
    with registry.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
        return answer


def entries(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


@pytest.mark.parametrize(
    "path",
    [
        "/v2/../../../../etc/passwd",
        "/v2/a/../../b/manifests/v1",
        "/v2/%2e%2e/%2e%2e/manifests/v1",
        "/v2/a%00b/manifests/v1",
        "/v2/a/b/blobs/sha256:..%2f..%2f..%2fregistry.db",
        "/v2/a/b/blobs/sha256:" + "%2e" * 64,
        "/v2/a/b/blobs/uploads/..%2f..%2f..%2fetc",
        "/v2/a/b/blobs/uploads/../../lock",
        "/v2/a/b/manifests/..%2f..%2fregistry.db",
        "/v2//manifests/v1",
        "/v2/a\\b/manifests/v1",
        "/repository/../../etc/passwd",
        "/repository/..%2f..%2fregistry.db",
        "/v2/%ff%fe/manifests/v1",
    ],
)
def test_paths_that_leave_the_place(registry, path):
    before = entries(registry.data)
    for method in ("GET", "PUT", "POST", "PATCH", "DELETE"):
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        answer = raw(registry, head.encode())
        assert answer.split()[1] in (b"400", b"404", b"405"), answer[:300]
        assert b"root:" not in answer
        assert b"SQLite" not in answer
    assert entries(registry.data) == before


def test_digests_that_lie(registry):
    for claimed in ("sha256:" + "0" * 64, digest_of(b"other"), "sha512:" + "0" * 128):
        location = registry("POST", "lies/here/blobs/uploads/")[1]["location"]
        status, _, _ = registry("PUT", f"{location}?digest={claimed}", b"the truth")
        assert status == 400
        assert registry("HEAD", f"lies/here/blobs/{claimed}")[0] == 404
    for claimed in ("sha256:", "sha1:" + "0" * 40, "sha256:" + "A" * 64, "../../x", "sha256:" + "0" * 65):
        location = registry("POST", "lies/here/blobs/uploads/")[1]["location"]
        assert registry("PUT", f"{location}?digest={claimed}", b"the truth")[0] == 400
    assert not list((registry.data / "blobs/sha512").iterdir())


def test_upload_without_end(registry):
    location = registry("POST", "endless/upload/blobs/uploads/")[1]["location"]
    with registry.connect() as connection, contextlib.suppress(ConnectionError):
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        piece = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            connection.sendall(piece)
        pytest.fail("it is taken for ever")
    deadline = time.monotonic() + 10
    while registry("GET", location)[0] != 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list((registry.data / "uploads").glob(location.rpartition("/")[2]))


def test_huge_manifests(registry):
    for length in (100 << 20, (4 << 20) + 1):
        head = (
            f"PUT /v2/huge/one/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Type: {OCI_MANIFEST}\r\n"
            f"Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
        )
        answer = raw(registry, head.encode())
        assert answer.split()[1] == b"413"
        assert b"SIZE_INVALID" in answer
    connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=30)
    with contextlib.closing(connection), contextlib.suppress(ConnectionError):
        connection.request(
            "PUT", "/v2/huge/one/manifests/v1", (bytes(1 << 20) for _ in range(100)),
            {"Content-Type": OCI_MANIFEST}, encode_chunked=True,
        )  # fmt: skip
        assert connection.getresponse().status == 413


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 3_000_000,
        b'{"a":' * 500_000,
        b'{"schemaVersion":2,"config":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"schemaVersion":2,"mediaType":"%s","config":{},"layers":' % OCI_MANIFEST.encode()
        + b"[" + b"{}," * 1_000_000 + b"{}]}",
        b'{"schemaVersion":' + b"9" * 10_000 + b"}",
        b'{"schemaVersion":2e999}',
    ],
    ids=range(6),
)  # fmt: skip
def test_json_that_hurts(registry, data):
    began = time.monotonic()
    status, _, body = registry("PUT", "nested/json/manifests/v1", data, {"Content-Type": OCI_MANIFEST})
    assert status == 400, body
    assert time.monotonic() - began < 20


def test_a_manifest_of_many_names(registry):
    """The limit of a manifest bounds the rows that one push can make, and it can be removed again."""
    config = registry.put_blob("many/names", b"{}")
    entry = {"mediaType": OCI_CONFIG, "digest": config, "size": 2}
    manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry, "layers": [entry] * 20_000}
    digest = registry.put_manifest("many/names", "v1", manifest)
    assert registry("DELETE", f"many/names/manifests/{digest}")[0] == 202


def test_slow_heads(registry):
    """Hundreds of clients that never finish their heads take nothing from others."""
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", registry.port)))
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: ")
        began = time.monotonic()
        assert registry.manifest("good/image", "v1")
        assert time.monotonic() - began < 5


def test_slow_bodies_hold_no_threads(registry):
    """More stalled uploads than there are worker threads."""
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            location = registry("POST", "slow/body/blobs/uploads/")[1]["location"]
            connection = stack.enter_context(registry.connect())
            connection.sendall(
                f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx".encode()
            )
        began = time.monotonic()
        registry.fill("good/image", "v2")
        assert time.monotonic() - began < 10


def test_slow_readers_hold_no_threads(registry):
    digest = registry.put_blob("slow/reader", os.urandom(1 << 20) * 7)
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            connection = stack.enter_context(registry.connect())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(f"GET /v2/slow/reader/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.5)
        began = time.monotonic()
        assert digest_of(registry("GET", f"slow/reader/blobs/{digest}")[2]) == digest
        assert time.monotonic() - began < 10


def test_trickling_bodies_are_given_up(monkeypatch):
    """Less than `SLOWEST_BYTES` in `STALL_S`, and silence, end with an error."""
    import asyncio

    from sampan.registry.server.faults import TooSlow

    monkeypatch.setattr(bodies, "STALL_S", 0.2)

    class Body:
        def __init__(self, pause: float) -> None:
            self.pause = pause

        async def read_pieces(self) -> list[bytes]:
            await asyncio.sleep(self.pause)
            return [b"x"]

    class Request:
        def __init__(self, pause: float) -> None:
            self.body = Body(pause)

    async def read(pause: float) -> None:
        async for _ in bodies.pieces(Request(pause)):  # type: ignore[arg-type]
            pass

    for pause, text in ((0.05, "only"), (10.0, "nothing")):
        with pytest.raises(TooSlow, match=text):
            asyncio.run(asyncio.wait_for(read(pause), 5))


def test_smuggled_requests(registry):
    smuggled = b"0\r\n\r\nDELETE /v2/good/image/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n"
    for headers in (
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 4\r\nContent-Length: 90\r\n",
        b"Transfer-Encoding: xchunked\r\n",
    ):
        head = b"PUT /v2/a/b/manifests/v1 HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n"
        answer = raw(registry, head + smuggled)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert answer.split()[1] in (b"400", b"501")


EVIL = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'></code></td><svg/onload=alert(3)>{{7*7}}{%x%}"
)


class _Seen(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}

    def handle_data(self, data):
        self.text += data


def test_pages_escape_everything(registry):
    name = "evil/page"
    document = json.dumps(
        {"os": EVIL, "architecture": EVIL, "created": EVIL, "history": [{"created_by": EVIL}, 5, None]}
    ).encode()
    config, layer = registry.put_blob(name, document), registry.put_blob(name, b"x")
    manifest = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "annotations": {EVIL: EVIL},
        "config": {"mediaType": OCI_CONFIG, "digest": config, "size": len(document)},
        "layers": [{"mediaType": EVIL, "digest": layer, "size": 1}],
    }  # fmt: skip
    digest = registry.put_manifest(name, "v1", manifest)
    about = {**manifest, "artifactType": EVIL,
             "subject": {"mediaType": OCI_MANIFEST, "digest": digest, "size": 1}}  # fmt: skip
    registry.put_manifest(name, "about", about)
    for target, host in (
        (f"/repository/{name}", EVIL),
        ("/?q=" + "%3Cscript%3Ealert(1)%3C/script%3E%22", "x"),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=10)
        connection.putrequest("GET", target, skip_host=True)
        connection.putheader("Host", host)
        connection.endheaders()
        answer = connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        seen = _Seen()
        seen.feed(body)
        assert not seen.tags & {"script", "img", "svg", "iframe", "link", "object"}
        assert not [one for one in seen.attributes if one.startswith("on")]
        assert "alert(1)" in body  # it is shown, as text
        if host == EVIL:
            assert seen.text.count(EVIL) >= 5  # in names, values, history, platform and the command to pull
        connection.close()


def test_page_of_a_broken_config(registry):
    for number, data in enumerate((b"[]", b"{", b'{"history": 5}', b"[" * 100_000, b'{"os": ["x"]}')):
        config = registry.put_blob("evil/config", data)
        entry = {"mediaType": OCI_CONFIG, "digest": config, "size": len(data)}
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": entry, "layers": []}
        registry.put_manifest("evil/config", f"v{number}", manifest)
    assert registry("GET", "/v2/../repository/evil/config")[0] in (400, 404)
    connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=10)
    connection.request("GET", "/repository/evil/config")
    assert connection.getresponse().status == 200
    connection.close()


def test_tokens_in_tags_and_queries(registry):
    """What looks like another header or log line in a path is only a path."""
    answer = raw(
        registry,
        b"GET /v2/good/image/manifests/v1%0d%0aSet-Cookie:%20x=y HTTP/1.1\r\n"
        b"Host: x\r\nConnection: close\r\n\r\n",
    )
    assert answer.split()[1] == b"400"
    assert b"\r\nSet-Cookie" not in answer
    answer = raw(
        registry,
        b"GET /v2/good/image/tags/list?n=1&last=%0d%0aX:%20y HTTP/1.1\r\n"
        b"Host: x\r\nConnection: close\r\n\r\n",
    )
    assert b"\r\nX: y" not in answer
    lines = registry.log.read_text().splitlines()
    assert not [line for line in lines if "Set-Cookie" in line and " GET /v2/" not in line]


def test_the_data_is_for_the_owner_alone(registry):
    assert registry.data.stat().st_mode & 0o077 == 0
    assert (registry.data / "control.sock").stat().st_mode & 0o177 == 0
    blob = next((registry.data / "blobs/sha256").iterdir())
    assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
