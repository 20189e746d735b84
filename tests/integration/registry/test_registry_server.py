"""Our registry as a service: who may come in, limits, crashes, collection, leaving."""

import base64
import contextlib
import hashlib
import http.client
import json
import os
import signal
import sqlite3
import ssl
import threading
import time

import pytest

from support.own_registry import PASSWORD, SOURCE, USER, OwnRegistry
from support.registry import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Authority, digest_of

BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


def codes(body: bytes) -> list[str]:
    return [error["code"] for error in json.loads(body)["errors"]]


def files(registry: OwnRegistry) -> dict[str, int]:
    """The blobs on the disk and their sizes, after a look at each one's digest."""
    found = {}
    for path in (registry.data / "blobs/sha256").iterdir():
        with path.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == path.name
        found[f"sha256:{path.name}"] = path.stat().st_size
    return found


# --- who may come in ---


def test_passwords(tmp_path):
    with OwnRegistry(tmp_path, auth=True) as registry:
        registry.fill("private/image", "v1")
        registry.auth = False  # as somebody else
        status, headers, body = registry("GET", "/v2/")
        assert (status, codes(body)) == (401, ["UNAUTHORIZED"])
        assert headers["www-authenticate"] == 'Basic realm="Sampan registry"'
        assert headers["docker-distribution-api-version"] == "registry/2.0"
        for wrong in (
            "Basic " + base64.b64encode(f"{USER}:wrong".encode()).decode(),
            "Basic " + base64.b64encode(b"nobody:" + PASSWORD.encode()).decode(),
            "Basic !!!", "Basic", "Bearer x", "Basic " + base64.b64encode(b"nocolon").decode(),
        ):  # fmt: skip
            assert registry("GET", "/v2/", headers={"Authorization": wrong})[0] == 401
        for method, path in (
            ("GET", "private/image/manifests/v1"), ("POST", "private/image/blobs/uploads/"),
            ("GET", "/v2/_catalog"),
        ):  # fmt: skip
            assert registry(method, path)[0] == 401
        assert registry("GET", "/v2/", headers={"Authorization": BASIC})[0] == 200


def test_passwords_change_while_it_runs(tmp_path):
    import bcrypt

    with OwnRegistry(tmp_path, auth=True) as registry:
        assert registry("GET", "/v2/")[0] == 200
        other = bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()
        (tmp_path / "htpasswd").write_text(f"# users\n\n{USER}:{other}\n")
        deadline = time.monotonic() + 10
        while registry("GET", "/v2/")[0] == 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        (tmp_path / "htpasswd").write_text(f"{USER}:$apr1$no$bcrypt\n")
        registry.auth = False
        changed = {"Authorization": "Basic " + base64.b64encode(f"{USER}:other".encode()).decode()}
        time.sleep(1.1)
        assert registry("GET", "/v2/", headers=changed)[0] == 200
        registry.wait_for_log("line 1: the hash of")


def test_tls_and_client_certificates(tmp_path):
    clients = Authority(tmp_path / "clients")
    flags = ("--tls-client-ca", str(clients.certificate))
    with OwnRegistry(tmp_path / "registry", *flags, tls=True) as registry:
        context = ssl.create_default_context(cafile=str(registry.authority.certificate))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ask(registry.port, context)
        certificate, key = clients.issue("somebody")
        context.load_cert_chain(certificate, key)
        assert ask(registry.port, context) == 200


def test_a_renewed_certificate(tmp_path):
    def serial() -> str:
        text = ssl.get_server_certificate(("127.0.0.1", registry.port), timeout=10)
        return digest_of(ssl.PEM_cert_to_DER_cert(text))

    with OwnRegistry(tmp_path, tls=True) as registry:
        before = serial()
        registry.authority.issue("server", "IP:127.0.0.1")
        registry.signal(signal.SIGHUP)
        registry.wait_for_log("server.cert is in use")
        renewed = serial()
        assert renewed != before
        (tmp_path / "authority/server.key").write_text("broken")
        registry.signal(signal.SIGHUP)
        registry.wait_for_log("the certificate of before stays")
        assert serial() == renewed
    with OwnRegistry(tmp_path / "plain") as registry:
        registry.signal(signal.SIGHUP)
        registry.wait_for_log("no certificate")
        assert registry("GET", "/v2/")[0] == 200


def ask(port: int, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    with contextlib.closing(connection):
        connection.request("GET", "/v2/")
        return connection.getresponse().status


def test_large_blob_by_tls(tmp_path):
    data = os.urandom(1 << 20) * 9
    with OwnRegistry(tmp_path, tls=True) as registry:
        digest = registry.put_blob("tls/blob", data)
        assert registry("GET", f"tls/blob/blobs/{digest}")[2] == data
        part = registry("GET", f"tls/blob/blobs/{digest}", headers={"Range": "bytes=1000-8000000"})[2]
        assert part == data[1000:8000001]


def test_read_only(tmp_path):
    with OwnRegistry(tmp_path) as registry:
        digest = registry.fill("kept/image", "v1")
    with OwnRegistry(tmp_path, "--read-only") as registry:
        assert registry.manifest("kept/image", "v1")[1] == digest
        for method, path in (
            ("POST", "kept/image/blobs/uploads/"), ("PUT", "kept/image/manifests/v2"),
            ("DELETE", f"kept/image/manifests/{digest}"),
        ):  # fmt: skip
            status, _, body = registry(method, path)
            assert (status, codes(body)) == (405, ["UNSUPPORTED"])
            assert b"read-only" in body


def test_no_deletions(tmp_path):
    with OwnRegistry(tmp_path, "--no-delete") as registry:
        digest = registry.fill("kept/image", "v1")
        assert registry("DELETE", f"kept/image/manifests/{digest}")[0] == 405
        _, headers, _ = registry("POST", "kept/image/blobs/uploads/")
        assert registry("DELETE", headers["location"])[0] == 204  # an upload may be given up


# --- limits ---


def test_limit_of_a_blob(tmp_path):
    with OwnRegistry(tmp_path, "--max-blob", "100k") as registry:
        registry.put_blob("a/b", bytes(102400))
        location = registry("POST", "a/b/blobs/uploads/")[1]["location"]
        status, _, body = registry("PATCH", location, bytes(102401))
        assert (status, codes(body)) == (413, ["SIZE_INVALID"])
        assert registry("GET", location)[0] == 404
        assert not list((registry.data / "uploads").iterdir())
        location = registry("POST", "a/b/blobs/uploads/")[1]["location"]
        assert registry("PATCH", location, bytes(60_000))[0] == 202
        assert registry("PATCH", location, bytes(60_000))[0] == 413


def test_limit_of_a_blob_without_a_length(tmp_path):
    with OwnRegistry(tmp_path, "--max-blob", "10m") as registry:
        location = registry("POST", "a/b/blobs/uploads/")[1]["location"]
        connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=30)
        with contextlib.closing(connection), contextlib.suppress(ConnectionError):
            connection.request("PATCH", location, (bytes(1 << 20) for _ in range(100)), encode_chunked=True)
            assert connection.getresponse().status == 413
        deadline = time.monotonic() + 10
        while registry("GET", location)[0] != 404:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert not list((registry.data / "uploads").iterdir())


def test_quotas(tmp_path):
    with OwnRegistry(tmp_path, "--max-repository", "300k", "--max-total", "500k") as registry:
        registry.put_blob("a/first", os.urandom(200 << 10))
        status, _, body = registry(
            "POST", "a/first/blobs/uploads/?digest=" + digest_of(b"x"), bytes(200 << 10)
        )
        assert (status, codes(body)) == (403, ["DENIED"])
        assert b"a/first may hold" in body
        registry.put_blob("a/second", os.urandom(200 << 10))
        status, _, body = registry(
            "POST", "a/third/blobs/uploads/?digest=" + digest_of(b"x"), bytes(200 << 10)
        )
        assert (status, codes(body)) == (403, ["DENIED"])
        assert b"in all" in body
        registry.put_blob("a/third", os.urandom(50 << 10))
        digest = next(iter(sorted(files(registry), key=files(registry).get)))
        assert registry("DELETE", f"a/third/blobs/{digest}")[0] == 202
        assert "removed 1 blobs" in registry.collect()
        registry.put_blob("a/third", os.urandom(80 << 10))  # there is room again


def test_number_of_uploads_and_their_expiry(tmp_path):
    with OwnRegistry(tmp_path, "--max-uploads", "2", "--upload-expiry", "1s") as registry:
        location = registry("POST", "a/b/blobs/uploads/")[1]["location"]
        registry("POST", "a/b/blobs/uploads/")
        status, _, body = registry("POST", "a/b/blobs/uploads/")
        assert (status, codes(body)) == (429, ["TOOMANYREQUESTS"])
        time.sleep(1.2)
        assert "2 expired uploads" in registry.collect()
        assert registry("GET", location)[0] == 404
        assert registry("POST", "a/b/blobs/uploads/")[0] == 202


# --- crashes ---


def test_an_upload_outlives_the_registry(tmp_path):
    data = os.urandom(300_000)
    registry = OwnRegistry(tmp_path).start()
    location = registry("POST", "a/b/blobs/uploads/")[1]["location"]
    assert registry("PATCH", location, data[:100_000])[0] == 202
    registry.kill()
    with registry.start():
        status, headers, _ = registry("GET", location)
        assert (status, headers["range"]) == (204, "0-99999")
        assert registry("PATCH", location, data[100_000:], {"Content-Range": "100000-299999"})[0] == 202
        assert registry("PUT", f"{location}?digest={digest_of(data)}")[0] == 201
        assert registry("GET", f"a/b/blobs/{digest_of(data)}")[2] == data


def test_killed_in_the_midst_of_uploads(tmp_path):
    """SIGKILL at any moment: every blob that is there is whole, every one acknowledged is there."""
    acknowledged: dict[str, int] = {}
    stop = threading.Event()

    def push(number: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            data = os.urandom(16) * (1 + turn % 7 * 20_000)
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError, KeyError):
                acknowledged[registry.put_blob(f"crash/{number}", data)] = len(data)
                continue
            time.sleep(0.01)  # while nobody listens

    registry = OwnRegistry(tmp_path)
    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    registry.start()
    for thread in threads:
        thread.start()
    for _ in range(5):
        time.sleep(0.25)
        registry.kill()
        before = dict(acknowledged)
        registry.start()
        there = files(registry)
        for digest, size in before.items():
            assert there[digest] == size
    stop.set()
    for thread in threads:
        thread.join()
    assert len(acknowledged) > 5
    with sqlite3.connect(registry.data / "registry.db") as database:
        assert dict(database.execute("SELECT digest, size FROM blobs")) == files(registry)
    registry.stop()


def test_repairs_at_the_start(tmp_path):
    registry = OwnRegistry(tmp_path).start()
    lost = registry.put_blob("a/b", b"this one will be lost")
    cut = registry.put_blob("a/b", b"this one will be cut short")
    kept = registry.put_blob("a/b", b"this one stays")
    registry.kill()
    blobs = registry.data / "blobs/sha256"
    (blobs / lost.removeprefix("sha256:")).unlink()
    os.truncate(blobs / cut.removeprefix("sha256:"), 5)
    stray = blobs / ("0" * 64)
    stray.write_bytes(b"renamed, but never acknowledged")
    (registry.data / "uploads/broken").mkdir()
    with registry.start():
        assert [registry("HEAD", f"a/b/blobs/{one}")[0] for one in (lost, cut, kept)] == [404, 404, 200]
        assert set(files(registry)) == {kept}
        assert not list((registry.data / "uploads").iterdir())
        assert f"blob {lost} is lost" in registry.log.read_text()
        registry.put_blob("a/b", b"this one will be lost")  # pushed again, it is back
        assert registry("HEAD", f"a/b/blobs/{lost}")[0] == 200


def test_one_registry_for_a_directory(tmp_path):
    with OwnRegistry(tmp_path) as registry:
        second = OwnRegistry(tmp_path)
        with pytest.raises(
            pytest.fail.Exception, match=f"in use by another registry .pid {registry.process.pid}"
        ):
            second.start()


# --- many at once ---


def test_the_same_blob_by_many(tmp_path):
    data = os.urandom(1 << 20) * 5
    with OwnRegistry(tmp_path) as registry:
        results: list[str] = []
        threads = [
            threading.Thread(target=lambda n=number: results.append(registry.put_blob(f"many/{n % 3}", data)))
            for number in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [digest_of(data)] * 12
        assert files(registry) == {digest_of(data): len(data)}
        assert not list((registry.data / "uploads").iterdir())
        for number in range(3):
            assert registry("GET", f"many/{number}/blobs/{digest_of(data)}")[2] == data


def test_two_requests_to_one_upload(tmp_path):
    with OwnRegistry(tmp_path) as registry:
        location = registry("POST", "a/b/blobs/uploads/")[1]["location"]
        with registry.connect() as first:
            first.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc".encode())
            deadline = time.monotonic() + 10
            while registry("GET", location)[1]["range"] != "0-2":
                assert time.monotonic() < deadline
            status, _, body = registry("PATCH", location, b"xyz")
            assert (status, codes(body)) == (409, ["BLOB_UPLOAD_INVALID"])
            first.sendall(b"defghij")
            assert first.recv(100).startswith(b"HTTP/1.1 202 ")
        assert registry("PUT", f"{location}?digest={digest_of(b'abcdefghij')}")[0] == 201


def test_an_upload_cut_off_goes_on(tmp_path):
    data = os.urandom(1_000_000)
    with OwnRegistry(tmp_path) as registry:
        location = registry("POST", "a/b/blobs/uploads/")[1]["location"]
        with registry.connect() as first:
            head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
            first.sendall(head.encode() + data[:400_000])
        deadline = time.monotonic() + 10
        while (found := registry("GET", location)[1]["range"]) != "0-399999":
            assert time.monotonic() < deadline, found
        rest = {"Content-Range": "400000-999999"}
        assert registry("PUT", f"{location}?digest={digest_of(data)}", data[400_000:], rest)[0] == 201


# --- collection ---


def test_collection(tmp_path):
    with OwnRegistry(tmp_path, "--gc-grace", "0") as registry:
        digest = registry.fill("a/image", "v1", [{"one": b"1"}, {"two": b"2"}])
        registry.fill("a/copy", "v1", [{"one": b"1"}])
        untagged = registry.fill("a/image", "v1", [{"one": b"1"}, {"three": b"3"}])
        loose = registry.put_blob("a/image", b"nothing names me")
        assert loose in files(registry)
        assert registry.collect().startswith("removed 1 blobs (16 bytes), 0 untagged manifests")
        assert registry.manifest("a/image", digest)[1] == digest
        before = len(files(registry))
        assert "removed 2 blobs" in registry.collect("--untagged")  # the layer and config of the first v1
        assert len(files(registry)) == before - 2
        assert registry("GET", f"a/image/manifests/{digest}")[0] == 404
        assert registry.manifest("a/image", "v1")[1] == untagged
        registry("DELETE", f"a/image/manifests/{untagged}")
        registry.put_blob("a/image", b"to make it three")
        registry.signal(signal.SIGUSR1)
        registry.wait_for_log("removed 3 blobs")
        manifest, _ = registry.manifest("a/copy", "v1")
        assert {manifest["config"]["digest"], manifest["layers"][0]["digest"]} == set(files(registry))
    assert "removed 0 blobs" in registry.collect("--grace", "0")  # with nobody serving


def test_collection_keeps_what_belongs_together(tmp_path):
    """Children of a tagged index and what refers to a kept manifest stay without tags of their own."""
    with OwnRegistry(tmp_path, "--gc-grace", "0", "--gc-untagged") as registry:
        child = registry.fill("a/b", "temporary")
        document, _ = registry.manifest("a/b", "temporary")
        size = len(registry("GET", f"a/b/manifests/{child}")[2])
        entry = {"mediaType": OCI_MANIFEST, "digest": child, "size": size}
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        }
        top = registry.put_manifest("a/b", "multi", index)
        about = {**document, "subject": {"mediaType": index["mediaType"], "digest": top, "size": 1}}
        data = json.dumps(about).encode()
        signature = registry.put_manifest("a/b", digest_of(data), data)
        registry("DELETE", "a/b/manifests/temporary")
        assert "0 untagged manifests" in registry.collect()
        registry("DELETE", "a/b/manifests/multi")
        assert "removed 2 blobs" in (said := registry.collect())
        assert "3 untagged manifests" in said
        assert registry("GET", f"a/b/manifests/{signature}")[0] == 404
        assert json.loads(registry("GET", "_catalog")[2])["repositories"] == []


def test_collection_by_interval(tmp_path):
    with OwnRegistry(tmp_path, "--gc-grace", "0", "--gc-interval", "200ms") as registry:
        registry.put_blob("a/b", b"loose")
        deadline = time.monotonic() + 10
        while files(registry):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_collection_during_pushes(tmp_path):
    """No push fails, and none is left with a hole, while the collector takes away all it can."""
    with OwnRegistry(tmp_path, "--gc-grace", "1s", "--gc-untagged", "--gc-interval", "50ms") as registry:
        stop = time.monotonic() + 6
        failures: list[BaseException] = []
        pushed: dict[str, str] = {}

        def push(number: int) -> None:
            turn = 0
            try:
                while time.monotonic() < stop:
                    turn += 1
                    shared = b"in each image" + bytes(turn % 3)
                    layers = [{"shared": shared}, {"own": os.urandom(2000)}]
                    pushed[f"push/{number % 2}"] = registry.fill(f"push/{number % 2}", "latest", layers)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        for name in pushed:
            manifest, _ = registry.manifest(name, "latest")
            for entry in (manifest["config"], *manifest["layers"]):
                status, _, body = registry("GET", f"{name}/blobs/{entry['digest']}")
                assert (status, digest_of(body)) == (200, entry["digest"])
        registry.wait_for_log("garbage collection: removed ")


# --- leaving ---


def test_leaving_lets_requests_end(tmp_path):
    data = os.urandom(1 << 20) * 32
    with OwnRegistry(tmp_path) as registry:
        digest = registry.put_blob("a/b", data)
        location = registry("POST", "a/b/blobs/uploads/")[1]["location"]
        with registry.connect() as download, registry.connect() as upload:
            download.sendall(f"GET /v2/a/b/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            got = download.recv(1000)
            upload.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc".encode())
            time.sleep(0.3)
            registry.signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(OSError):
                registry.connect()
            upload.sendall(b"def")
            assert upload.recv(1000).startswith(b"HTTP/1.1 202 ")
            pieces = [got, *iter(lambda: download.recv(1 << 20), b"")]
            body = b"".join(pieces).partition(b"\r\n\r\n")[2]
            assert (len(body), digest_of(body)) == (len(data), digest)
        assert registry.process.wait(10) == 0


# --- small things ---


def test_search(tmp_path):
    with OwnRegistry(tmp_path) as registry:
        registry.fill("team/front-end", "v1")
        registry.fill("team/back-end", "v1")
        registry.fill("other/thing", "v1")
        found = registry("GET", "/v2/../v1/_ping")[0]
        assert found == 404
        connection = http.client.HTTPConnection("127.0.0.1", registry.port, timeout=10)
        connection.request("GET", "/v1/_ping")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["X-Docker-Registry-Version"]) == (200, "0.9.1")
        answer.read()
        connection.request("GET", "/v1/search?q=end&n=25")
        found = json.loads(connection.getresponse().read())
        assert found["num_results"] == 2
        assert [one["name"] for one in found["results"]] == ["team/back-end", "team/front-end"]
        connection.close()


def test_from_the_command_line(tmp_path):
    import subprocess
    import sys

    program = [sys.executable, "-m", "sampan.cli", "registry"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    for words in (["serve", "--help"], ["gc", "--help"]):
        done = subprocess.run([*program, *words], env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0
        assert done.stdout.startswith(f"usage: sampan registry {words[0]} [OPTIONS]")
    done = subprocess.run(
        [*program, "gc", "--root", str(tmp_path)], env=environment, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (
        1, f"sampan registry: {tmp_path}: no registry has its data there: see --root\n",
    )  # fmt: skip


def test_full_image_document(tmp_path):
    """Docker's media types side by side with OCI's in one repository, and zstd layers as they are."""
    with OwnRegistry(tmp_path) as registry:
        config = registry.put_blob("a/b", b"{}")
        layer = registry.put_blob("a/b", b"\x28\xb5\x2f\xfd not really")
        manifest = {
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": config, "size": 2},
            "layers": [
                {"mediaType": OCI_LAYER_GZIP.replace("gzip", "zstd"), "digest": layer, "size": 15},
                {"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                 "digest": digest_of(b"far away"), "size": 8, "urls": ["https://example.org/far"]},
            ],
        }  # fmt: skip
        registry.put_manifest("a/b", "v1", manifest)
        assert registry.manifest("a/b", "v1")[0] == manifest
