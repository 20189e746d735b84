"""Registries that lie, stall, loop, flood and pry: each ends in a clear error, in bounded time and memory."""

import gzip
import io
import json
import os
import time
import tracemalloc

import pytest

from sampan.errors import SampanError
from sampan.oci.digest import DigestMismatch
from sampan.oci.image import Descriptor
from sampan.oci.reference import parse
from sampan.registry import (
    Credentials,
    InvalidAnswer,
    Registries,
    RegistryConfig,
    RegistryError,
    RegistryUnauthorized,
    RegistryUnreachable,
    TooManyRequests,
)
from support.hostile import Hostile, endless, hang, head, raw, reply
from support.registry import Authority, digest_of

OCI = "application/vnd.oci.image.manifest.v1+json"
SECRET = Credentials("captain", "the secret of the ship")
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(b"{}"),
            "size": 2,
        },
        "layers": [],
    }
).encode()


def bomb() -> bytes:
    """100 MB of zeros as gzip, made without having them."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb") as file:
        for _ in range(100):
            file.write(bytes(1 << 20))
    return out.getvalue()


MANIFESTS, BLOBS = "/v2/x/manifests/.*", "/v2/x/blobs/.*"


@pytest.fixture
def server():
    with Hostile() as server:
        yield server


@pytest.fixture
def bounded():
    """The client's own memory stays small, and the whole takes seconds at most."""
    tracemalloc.start()
    started = time.monotonic()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20, f"{peak >> 20} MiB"
    assert time.monotonic() - started < 15


def open_repository(server, credentials=None, actions=("pull", "push"), **settings):
    config = RegistryConfig(
        certs_directories=settings.pop("certs_directories", ()),
        retry_delay_s=0.01,
        stall_timeout_s=0.4,
        max_download_attempts=3,
        **settings,
    )
    return Registries(config).repository(parse(f"{server.host}/x"), credentials, actions)


def blob_of(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(data), len(data))


def manifest_reply(data=MANIFEST, **headers):
    return reply(200, data, {"Content-Type": OCI, **headers})


# --- too much ---


@pytest.mark.parametrize(
    "start",
    [
        head(200, {"Content-Type": OCI, "Content-Length": str(100 << 20)}),
        head(200, {"Content-Type": OCI, "Connection": "close"}),
    ],
    ids=["announced", "not announced"],
)
def test_manifest_of_100_megabytes(server, bounded, start):
    server.on("*", MANIFESTS, endless(start, b" " * 65536, 100 << 20))
    with pytest.raises(InvalidAnswer, match="more than the limit of"):
        open_repository(server).manifest("v1")
    assert server.sent < 40 << 20


def test_manifest_that_unfolds(server, bounded):
    """A Content-Encoding that nobody asked for: 100 MB of zeros in 100 kB."""
    server.on("*", MANIFESTS, manifest_reply(bomb(), **{"Content-Encoding": "gzip"}))
    with pytest.raises(InvalidAnswer, match="Content-Encoding 'gzip'"):
        open_repository(server).manifest("v1")


def test_blob_that_unfolds(server, bounded):
    server.on("GET", BLOBS, reply(200, bomb(), {"Content-Encoding": "gzip"}))
    with pytest.raises(InvalidAnswer, match="Content-Encoding"):
        open_repository(server).download(blob_of(bytes(1000))).read()


def test_blob_without_an_end(server, bounded):
    server.on("GET", BLOBS, endless(head(200, {"Connection": "close"}), b"x" * 65536))
    with pytest.raises(DigestMismatch, match="more than the 1000 bytes announced"):
        open_repository(server).download(Descriptor("", digest_of(b"x" * 1000), 1000)).read()


def test_error_without_an_end(server, bounded):
    server.on("*", MANIFESTS, endless(head(404, {"Connection": "close"}), b"x" * 65536))
    with pytest.raises(RegistryError):
        open_repository(server).manifest("v1")


def test_token_without_an_end(server, bounded):
    server.on("*", MANIFESTS, reply(401, headers={"WWW-Authenticate": f'Bearer realm="{server.url}/token"'}))
    server.on("GET", "/token.*", endless(head(200, {"Connection": "close"}), b"x" * 65536))
    with pytest.raises(InvalidAnswer, match="more than the limit"):
        open_repository(server).manifest("v1")


@pytest.mark.parametrize(
    "answer",
    [
        endless(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        endless(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536),
        endless(b"", b"y" * 65536),
        raw(b"not http at all\r\n\r\n"),
        raw(b"HTTP/1.1 99999 OK\r\n\r\n"),
    ],
    ids=["headers", "header", "status", "nonsense", "number"],
)
def test_heads_that_are_none(server, bounded, answer):
    server.on("*", MANIFESTS, answer)
    with pytest.raises(RegistryUnreachable):
        open_repository(server).manifest("v1")


def test_tags_without_an_end(server, bounded):
    page = json.dumps({"tags": ["t" * 100] * 5000}).encode()
    server.on("GET", "/v2/x/tags/list.*", reply(200, page, {"Link": '</v2/x/tags/list?n=1>; rel="next"'}))
    with pytest.raises(InvalidAnswer, match="tags"):
        open_repository(server).tags()


def test_tags_at_another_host(server):
    link = {"Link": '<http://169.254.169.254/v2/x/tags/list>; rel="next"'}
    server.on("GET", "/v2/x/tags/list", reply(200, b'{"tags":["a"]}', link))
    with pytest.raises(InvalidAnswer, match="at another host"):
        open_repository(server).tags()


# --- lies ---


def test_manifest_of_another_digest(server):
    server.on("*", MANIFESTS, manifest_reply())
    with pytest.raises(DigestMismatch):
        open_repository(server).manifest(digest_of(b"another"))
    with pytest.raises(DigestMismatch):
        open_repository(server).resolve(digest_of(b"another"))


def test_manifest_that_is_not_the_announced_one(server):
    server.on("*", MANIFESTS, manifest_reply(**{"Docker-Content-Digest": digest_of(b"another")}))
    with pytest.raises(DigestMismatch):
        open_repository(server).manifest("v1")


def test_manifest_of_another_type(server):
    """An image to one reader, an index to another (CVE-2021-41190)."""
    index = "application/vnd.oci.image.index.v1+json"
    server.on("*", MANIFESTS, reply(200, MANIFEST, {"Content-Type": index}))
    with pytest.raises(InvalidAnswer, match="but the manifest says"):
        open_repository(server).manifest("v1")
    both = json.dumps({**json.loads(MANIFEST), "manifests": []}).encode()
    server.on("*", MANIFESTS, manifest_reply(both))
    with pytest.raises(InvalidAnswer, match="image and an index at once"):
        open_repository(server).manifest("v1")


def test_blob_of_another_digest(server):
    server.on("GET", BLOBS, reply(200, b"wrong"))
    with pytest.raises(DigestMismatch):
        open_repository(server).download(blob_of(b"right")).read()


@pytest.mark.parametrize("length", [4, 6, 10**18])
def test_wrong_content_length(server, length):
    server.on("GET", BLOBS, reply(200, b"right", {"Content-Length": str(length)}))
    with pytest.raises(InvalidAnswer, match="but the manifest says 5"):
        open_repository(server).download(blob_of(b"right")).read()


@pytest.mark.parametrize("length", ["-1", "5x", "+5", "٥"])
def test_content_length_that_is_no_number(server, length):
    text = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    server.on("GET", BLOBS, raw(text.encode() + b"right"))
    try:
        assert open_repository(server).download(blob_of(b"right")).read() == b"right"
    except RegistryError as error:
        assert "Content-Length" in error.message or "broke" in error.message


def test_registry_that_stores_something_else(server):
    server.on("PUT", MANIFESTS, reply(201, headers={"Docker-Content-Digest": digest_of(b"another")}))
    with pytest.raises(InvalidAnswer, match="stored"):
        open_repository(server).put_manifest("v1", MANIFEST, OCI)


def test_error_text_cannot_write_to_the_terminal(server):
    body = json.dumps({"errors": [{"code": "DENIED", "message": "a\x1b[2Jb\nc" + "x" * 5000}]}).encode()
    server.on("*", MANIFESTS, reply(403, body))
    with pytest.raises(RegistryError) as caught:
        open_repository(server).manifest("v1")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600


# --- silence and broken connections ---


@pytest.mark.parametrize(
    "answer",
    [
        hang(),
        hang(b"HTTP/1.1 200"),
        hang(head(200, {"Content-Type": OCI, "Content-Length": "1000"})),
        hang(head(200, {"Content-Type": OCI, "Content-Length": "1000"}) + b"{"),
        raw(head(200, {"Content-Length": "1000000"}), *[b"x"] * 100, pause_s=0.05),
    ],
    ids=["at once", "in the head", "after the head", "in the body", "drop by drop"],
)
def test_stall(server, bounded, answer):
    server.on("*", MANIFESTS, answer)
    with pytest.raises(RegistryUnreachable, match=r"no answer within|no data for|only \d+ bytes in"):
        open_repository(server).manifest("v1")


def test_stall_in_a_blob_is_bridged(server):
    data = os.urandom(300_000)
    server.on(
        "GET",
        BLOBS,
        hang(head(200, {"Content-Length": str(len(data))}) + data[:100_000]),
        reply(206, data[100_000:], {"Content-Range": f"bytes 100000-{len(data) - 1}/{len(data)}"}),
    )
    retries = []
    stream = open_repository(server).download(blob_of(data), on_retry=retries.append)
    assert stream.read() == data
    assert len(retries) == 1
    assert server.asked[-1].headers["range"] == "bytes=100000-"


def test_many_breaks(server):
    """A connection that breaks after every megabyte still brings a blob of twelve."""
    data = os.urandom(12 << 20)

    def piece(link, asked):
        start = int(asked.headers.get("range", "bytes=0-")[6:-1])
        status = 206 if start else 200
        fields = {"Content-Length": str(len(data) - start)}
        if start:
            fields["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        link.write(head(status, fields) + data[start : start + (1 << 20) + 7])
        link.keep = False

    server.on("GET", BLOBS, piece)
    assert digest_of(open_repository(server).download(blob_of(data)).read()) == digest_of(data)


def test_no_ranges(server):
    """A server that starts over is read over again, without telling the reader twice."""
    data = os.urandom(300_000)
    whole = head(200, {"Content-Length": str(len(data))})
    server.on("GET", BLOBS, raw(whole + data[:200_000]), raw(whole + data[:100_000]), reply(200, data))
    seen = []
    assert open_repository(server).download(blob_of(data), seen.append).read() == data
    assert seen == sorted(seen)


@pytest.mark.parametrize("content_range", ["", "bytes 5-9/10", "bytes x-y/z", "bytes 200000-299999/300000"])
def test_another_range(server, content_range):
    data = os.urandom(300_000)
    server.on(
        "GET",
        BLOBS,
        raw(head(200, {"Content-Length": str(len(data))}) + data[:100_000]),
        reply(206, data[100_000:], {"Content-Range": content_range}),
    )
    with pytest.raises(InvalidAnswer):
        open_repository(server).download(blob_of(data)).read()


def test_attempts_are_bounded(server):
    server.on("GET", BLOBS, raw(head(200, {"Content-Length": "5"}) + b"ri"))
    with pytest.raises(RegistryUnreachable, match="unexpected EOF"):
        open_repository(server).download(blob_of(b"right")).read()
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_trouble_that_passes(server, status):
    server.on("GET", BLOBS, reply(status, headers={"Retry-After": "0"}), reply(200, b"right"))
    assert open_repository(server).download(blob_of(b"right")).read() == b"right"
    server.on("*", MANIFESTS, reply(status), manifest_reply())
    assert open_repository(server).manifest("v1")[0] == MANIFEST


def test_retry_after_of_a_year(server, bounded):
    server.on("*", MANIFESTS, reply(429, headers={"Retry-After": "31536000"}))
    server.on("GET", BLOBS, reply(429, headers={"Retry-After": "Fri, 31 Dec 2199 23:59:59 GMT"}))
    with pytest.raises(TooManyRequests):
        open_repository(server).resolve("v1")
    with pytest.raises(TooManyRequests):
        open_repository(server).download(blob_of(b"right")).read()
    assert len(server.asked) == 2


def test_upload_that_breaks_off(server):
    data = os.urandom(500_000)
    server.on("POST", "/v2/x/blobs/uploads/", reply(202, headers={"Location": "/up?s=1"}))
    server.on("PUT", "/up.*", raw(b""), reply(503), reply(201))
    open_repository(server).uploads.upload(digest_of(data), len(data), lambda: io.BytesIO(data))
    assert [len(one.body) for one in server.asked if one.method == "PUT"] == [len(data)] * 3
    assert len(server.paths("POST")) == 3  # a fresh session for each attempt


def test_stream_that_breaks_off(server):
    pieces = [os.urandom(100_000) for _ in range(3)]
    server.on("POST", "/v2/x/blobs/uploads/", reply(202, headers={"Location": "/up"}))
    server.on("PATCH", "/up", raw(b""), reply(202, headers={"Location": "/end?s=2"}))
    server.on("PUT", "/end.*", reply(201))
    digest = digest_of(b"".join(pieces))
    assert open_repository(server).uploads.upload_stream(lambda: iter(pieces), lambda: digest) == digest
    assert [one.body for one in server.asked if one.method == "PATCH"][-1] == b"".join(pieces)
    assert server.asked[-1].path.startswith("/end?s=2&digest=sha256%3A")


# --- round and round ---


def test_redirect_loop(server, bounded):
    server.on("*", "/.*", reply(307, headers={"Location": "/v2/x/manifests/v1"}))
    with pytest.raises(InvalidAnswer, match="stopped after 10 redirects"):
        open_repository(server).manifest("v1")
    assert len(server.asked) <= 11


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://x/y", "", "http://", "http://u:p@127.0.0.1/"]
)
def test_redirect_to_nowhere(server, target):
    server.on("*", "/.*", reply(307, headers={"Location": target}))
    with pytest.raises(InvalidAnswer, match=r"leads nowhere|stopped after"):
        open_repository(server).manifest("v1")


@pytest.mark.parametrize("scheme", ["Basic realm=x", "Bearer realm"])
def test_401_loop(server, bounded, scheme):
    if scheme == "Bearer realm":
        scheme = f'Bearer realm="{server.url}/token",service="s"'
        server.on("*", "/token.*", reply(200, b'{"token":"t"}'))
    server.on("*", "/v2/.*", reply(401, headers={"WWW-Authenticate": scheme}))
    repository = open_repository(server, SECRET)
    with pytest.raises(RegistryUnauthorized):
        repository.manifest("v1")
    assert len(server.asked) <= 4
    with pytest.raises(RegistryUnauthorized):
        repository.uploads.upload(digest_of(b"x"), 1, lambda: io.BytesIO(b"x"))
    assert len(server.asked) <= 8


def test_token_server_in_a_loop(server, bounded):
    server.on("*", "/v2/.*", reply(401, headers={"WWW-Authenticate": f'Bearer realm="{server.url}/token"'}))
    server.on("*", "/token.*", reply(401, headers={"WWW-Authenticate": f'Bearer realm="{server.url}/token"'}))
    with pytest.raises(RegistryUnauthorized):
        open_repository(server, SECRET).manifest("v1")
    assert len(server.asked) <= 2


# --- secrets ---


def proofs(server):
    """Every Authorization header that a server has seen."""
    return [one.headers["authorization"] for one in server.asked if "authorization" in one.headers]


def test_redirect_takes_no_credentials_along(server):
    server.on("GET", "/v2/.*", reply(401, headers={"WWW-Authenticate": "Basic realm=x"}))
    with Hostile() as other:
        other.on("GET", "/blob", reply(200, b"right"))
        server.on(
            "GET",
            BLOBS,
            reply(401, headers={"WWW-Authenticate": "Basic realm=x"}),
            reply(307, headers={"Location": f"{other.url}/blob"}),
        )
        assert open_repository(server, SECRET).download(blob_of(b"right")).read() == b"right"
        assert len(proofs(server)) == 1
        assert len(other.asked) == 1
        assert proofs(other) == []


def test_other_host_cannot_ask_for_credentials(server):
    """A storage host that answers 401 learns nothing, and its challenge is not followed."""
    with Hostile() as other:
        other.on("*", "/.*", reply(401, headers={"WWW-Authenticate": f'Bearer realm="{other.url}/token"'}))
        server.on("GET", BLOBS, reply(307, headers={"Location": f"{other.url}/blob"}))
        with pytest.raises(RegistryUnauthorized):
            open_repository(server, SECRET).download(blob_of(b"right")).read()
        assert other.paths() == ["/blob"]
        assert proofs(other) == []


def test_upload_location_at_another_host(server):
    with Hostile() as other:
        other.on("PUT", "/.*", reply(201))
        server.on(
            "POST",
            "/v2/.*",
            reply(401, headers={"WWW-Authenticate": "Basic realm=x"}),
            reply(202, headers={"Location": f"{other.url}/up"}),
        )
        open_repository(server, SECRET).uploads.upload(digest_of(b"x"), 1, lambda: io.BytesIO(b"x"))
        assert len(other.asked) == 1
        assert proofs(other) == []


def test_token_server_cannot_pass_credentials_on(server):
    with Hostile() as other:
        server.on(
            "*", "/v2/.*", reply(401, headers={"WWW-Authenticate": f'Bearer realm="{server.url}/token"'})
        )
        server.on("*", "/token.*", reply(302, headers={"Location": f"{other.url}/token"}))
        with pytest.raises(InvalidAnswer, match="redirect: refused"):
            open_repository(server, SECRET).manifest("v1")
        assert other.asked == []


def test_mirror_gets_no_credentials(server, tmp_path):
    """Whatever a mirror asks for; and what it breaks, the registry itself mends."""
    with Hostile() as origin:
        origin.on("*", MANIFESTS, reply(401, headers={"WWW-Authenticate": "Basic realm=x"}), manifest_reply())
        server.on("*", "/v2/.*", reply(401, headers={"WWW-Authenticate": "Basic realm=x"}))
        (tmp_path / "harbour.example").mkdir()
        (tmp_path / "harbour.example" / "hosts.toml").write_text(
            f'server = "{origin.url}"\n[host."{server.url}"]\n[host."{server.url}".header]\nx-key = "k"\n'
        )
        registries = Registries(RegistryConfig(certs_directories=(tmp_path,)))
        repository = registries.repository(parse("harbour.example/x"), SECRET)
        assert repository.manifest("v1")[0] == MANIFEST
        assert proofs(server) == []
        assert server.asked[0].headers["x-key"] == "k"
        assert len(proofs(origin)) == 1
        assert all("x-key" not in one.headers for one in origin.asked)


@pytest.fixture
def secure(tmp_path, monkeypatch):
    """A server with TLS, whose authority is known for it; loopback is as any other network."""
    monkeypatch.setattr("sampan.registry.config.LOOPBACK", ())
    monkeypatch.setattr("sampan.registry.config.RegistryConfig.is_insecure", lambda self, host: False)
    authority = Authority(tmp_path / "authority")
    with Hostile(authority.issue("server", "IP:127.0.0.1")) as server:
        (tmp_path / "certs" / server.host).mkdir(parents=True)
        (tmp_path / "certs" / server.host / "ca.crt").write_bytes(authority.certificate.read_bytes())
        server.certs = tmp_path / "certs"
        yield server


def test_tls_is_not_left_by_a_redirect(secure, server):
    server.on("*", "/.*", manifest_reply())
    secure.on("*", "/v2/.*", reply(307, headers={"Location": f"{server.url}/v2/x/manifests/v1"}))
    with pytest.raises(InvalidAnswer, match="without TLS: refused"):
        open_repository(secure, SECRET, certs_directories=(secure.certs,)).manifest("v1")
    assert server.asked == []


def test_credentials_are_not_sent_to_a_token_server_without_tls(secure, server):
    server.on("*", "/token.*", reply(200, b'{"token":"t"}'))
    secure.on("*", "/v2/.*", reply(401, headers={"WWW-Authenticate": f'Bearer realm="{server.url}/token"'}))
    with pytest.raises(RegistryUnauthorized, match="without TLS"):
        open_repository(secure, SECRET, certs_directories=(secure.certs,)).manifest("v1")
    assert server.asked == []


def test_token_is_for_its_registry_alone(server):
    """Two registries with one token server: neither gets the other's token."""
    with Hostile() as other, Hostile() as tokens:
        tokens.on("GET", "/token.*", reply(200, b'{"token":"first"}'), reply(200, b'{"token":"second"}'))
        for one, service in ((server, "a"), (other, "b")):
            one.on(
                "*",
                MANIFESTS,
                reply(
                    401,
                    headers={"WWW-Authenticate": f'Bearer realm="{tokens.url}/token",service="{service}"'},
                ),
                manifest_reply(),
            )
        registries = Registries(RegistryConfig(certs_directories=(), retry_delay_s=0.01))
        for one in (server, other):
            assert registries.repository(parse(f"{one.host}/x"), SECRET).manifest("v1")[0] == MANIFEST
        assert proofs(server) == ["Bearer first"]
        assert proofs(other) == ["Bearer second"]


def test_errors_do_not_tell_signatures(server):
    """Storage links carry their right of access in the query."""
    with Hostile() as other:
        other.on("*", "/.*", reply(500))
        server.on("GET", BLOBS, reply(307, headers={"Location": f"{other.url}/blob?signature=secret"}))
        with pytest.raises(SampanError) as caught:
            open_repository(server).download(blob_of(b"right")).read()
    assert "secret" not in caught.value.message


def test_manifest_that_breaks_off_is_asked_for_again(server):
    start = head(200, {"Content-Type": OCI, "Content-Length": str(len(MANIFEST))})
    server.on("GET", MANIFESTS, raw(start + MANIFEST[:10]), manifest_reply())
    assert open_repository(server).manifest("v1")[0] == MANIFEST
