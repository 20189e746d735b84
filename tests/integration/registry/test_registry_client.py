"""The client against real registries: plain, with passwords, with TLS, behind mirrors."""

import contextlib
import io
import json
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest

from sampan.oci.digest import DigestMismatch
from sampan.oci.image import Descriptor
from sampan.oci.reference import parse
from sampan.registry import (
    Credentials,
    NotInRegistry,
    Registries,
    RegistryConfig,
    RegistryError,
    RegistryUnauthorized,
    RegistryUnreachable,
)
from support.hostile import Hostile, reply
from support.own_registry import OwnRegistry
from support.registry import PASSWORD, USER, Authority, Registry, digest_of, free_port

ME = Credentials(USER, PASSWORD)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with Registry(tmp_path_factory.mktemp("plain")) as registry:
        yield registry


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with Registry(tmp_path_factory.mktemp("guarded"), auth=True, tls=True) as registry:
        yield registry


def registries(**settings) -> Registries:
    settings.setdefault("certs_directories", ())
    return Registries(RegistryConfig(retry_delay_s=0.05, **settings))


def open_repository(registry, name, credentials=None, actions=("pull", "push"), **settings):
    return registries(**settings).repository(parse(f"{registry.host}/{name}"), credentials, actions)


def layer_of(data: bytes) -> Descriptor:
    layer = json.loads(data)["layers"][0]
    return Descriptor(layer["mediaType"], layer["digest"], layer["size"])


def test_reading(plain):
    digest = plain.fill("read/it", "v1")
    repository = open_repository(plain, "read/it")
    found = repository.resolve("v1")
    data, descriptor = repository.manifest("v1")
    assert found == descriptor
    assert found.digest == digest == digest_of(data)
    assert repository.manifest(digest) == (data, descriptor)
    layer = layer_of(data)
    seen = []
    with repository.download(layer, seen.append) as stream:
        assert digest_of(stream.read()) == layer.digest
    assert seen[-1] == layer.size


def test_nothing_there(plain):
    plain.fill("read/it", "v1")
    repository = open_repository(plain, "read/it")
    with pytest.raises(NotInRegistry, match="manifest unknown") as caught:
        repository.resolve("v2")
    assert caught.value.code == "MANIFEST_UNKNOWN"
    with (
        pytest.raises(NotInRegistry, match="blob unknown"),
        repository.download(Descriptor("", digest_of(b"no"), 2)) as stream,
    ):
        stream.read()
    assert not repository.has_blob(digest_of(b"no"))


def test_wrong_size_in_the_descriptor(plain):
    plain.fill("read/it", "v1")
    repository = open_repository(plain, "read/it")
    layer = layer_of(repository.manifest("v1")[0])
    layer.size -= 1
    with pytest.raises(RegistryError, match="but the manifest says"):
        repository.download(layer).read()


def test_tags_of_many_pages(plain):
    for number in range(7):
        plain.fill("many", f"t{number}")
    repository = open_repository(plain, "many")
    assert sorted(repository.tags()) == [f"t{number}" for number in range(7)]


def test_referrers_by_tag(plain):
    digest = plain.fill("ref", "v1")
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": plain.fill("ref", "sig", [{"signature": b"x"}]),
                "size": 418,
            }
        ],
    }
    repository = open_repository(plain, "ref")
    assert repository.referrers(digest) == []
    plain.put_manifest("ref", digest.replace(":", "-"), index)
    assert [item.digest for item in repository.referrers(digest)] == [index["manifests"][0]["digest"]]


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_upload_in_one_piece(plain, size):
    blob = os.urandom(size)
    repository = open_repository(plain, "up")
    sent = []
    repository.uploads.upload(digest_of(blob), size, lambda: io.BytesIO(blob), sent.append)
    assert plain.has_blob("up", digest_of(blob))
    assert sent[-1:] == ([size] if size else [])


class Cutter:
    """A way to a registry that breaks off `cuts` connections after `limit` bytes of the client's."""

    def __init__(self, port: int, limit: int, cuts: int = 1) -> None:
        self._target, self._limit, self._cuts = port, limit, cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                registry = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._serve, args=(client, registry), daemon=True).start()

    def _serve(self, client, registry):
        back = threading.Thread(target=self._carry, args=(registry, client), daemon=True)
        with client, registry:
            back.start()
            self._carry(client, registry, ups=True)
            back.join()

    def _carry(self, source, target, ups=False):
        carried = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                carried += len(data)
                if ups and self._cuts and carried > self._limit:
                    self._cuts -= 1
                    break
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture(params=["docker-registry", "ours"])
def either(request, tmp_path):
    """Debian's registry and ours."""
    if request.param == "docker-registry":
        yield request.getfixturevalue("plain")
        return
    with OwnRegistry(tmp_path) as own:
        yield own


def test_an_upload_that_breaks_off_goes_on(either):
    blob = os.urandom(40_000_000)
    asked = []
    with Cutter(either.port, 20_000_000, cuts=2) as cutter:
        repository = open_repository(cutter, "broken/off")
        whole = repository.uploads._client.request

        def request(method, path, scopes=(), headers=None, *arguments, **named):
            asked.append((method, dict(headers or {})))
            return whole(method, path, scopes, headers, *arguments, **named)

        repository.uploads._client.request = request
        repository.uploads.upload(digest_of(blob), len(blob), lambda: io.BytesIO(blob))
    assert either.has_blob("broken/off", digest_of(blob))
    chunks = [headers["Content-Range"] for method, headers in asked if method == "PATCH"]
    if not isinstance(either, OwnRegistry):  # Debian's forgets what a broken PUT has brought
        return
    assert chunks
    assert all(1_000_000 < int(chunk.partition("-")[0]) < len(blob) for chunk in chunks), chunks
    assert [method for method, _ in asked].count("POST") == 1, asked  # the first session was gone on with


@pytest.mark.parametrize("status", [307, 308])
def test_an_upload_that_is_sent_elsewhere(status):
    blob = os.urandom(3_000_000)
    with Hostile() as storage, Hostile() as registry:
        registry.on("POST", ".*", reply(202, headers={"Location": "/v2/a/blobs/uploads/1"}))
        registry.on("PUT", ".*", reply(status, headers={"Location": f"{storage.url}/kept?signature=x"}))
        storage.on("PUT", ".*", reply(201))
        open_repository(registry, "a").uploads.upload(digest_of(blob), len(blob), lambda: io.BytesIO(blob))
    assert [(one.path, one.body) for one in storage.asked] == [("/kept?signature=x", blob)]
    assert "authorization" not in storage.asked[0].headers


def test_upload_as_a_stream(plain):
    pieces = [os.urandom(100_000) for _ in range(20)]
    digest = digest_of(b"".join(pieces))
    repository = open_repository(plain, "up")
    assert repository.uploads.upload_stream(lambda: iter(pieces), lambda: digest) == digest
    assert plain.has_blob("up", digest)


def test_upload_of_other_bytes(plain):
    repository = open_repository(plain, "up")
    with pytest.raises(RegistryError, match="digest"):
        repository.uploads.upload(digest_of(b"right"), 5, lambda: io.BytesIO(b"wrong"))
    assert not plain.has_blob("up", digest_of(b"wrong"))


def test_mount(plain):
    blob = os.urandom(1000)
    plain.put_blob("from/here", blob)
    repository = open_repository(plain, "to/there")
    assert repository.uploads.mount(digest_of(blob), "from/here")
    assert plain.has_blob("to/there", digest_of(blob))
    assert not repository.uploads.mount(digest_of(b"absent"), "from/here")
    assert any(line.startswith("DELETE /v2/to/there/blobs/uploads/") for line in plain.requests())
    assert not list(plain.data.glob("**/to/there/_uploads/*/data"))  # nothing half-begun is left


def test_put_manifest_keeps_the_bytes(plain):
    plain.fill("keep", "v1")
    repository = open_repository(plain, "keep")
    data, descriptor = repository.manifest("v1")
    assert repository.put_manifest("v2", data, descriptor.media_type) == descriptor.digest
    assert plain.manifest("keep", "v2")[1] == descriptor.digest


def test_passwords(guarded):
    digest = guarded.fill("mine", "v1")
    assert open_repository(guarded, "mine", ME).resolve("v1").digest == digest
    with pytest.raises(RegistryUnauthorized, match="no basic auth credentials"):
        open_repository(guarded, "mine").resolve("v1")
    with pytest.raises(RegistryUnauthorized, match="unauthorized: authentication required"):
        open_repository(guarded, "mine", Credentials(USER, "wrong")).resolve("v1")
    # a refused password is sent once only
    wrong = [line for line in guarded.requests() if line.endswith(" 401")]
    assert len(wrong) <= 6


def certs_of(directory: Path, registry: Registry) -> Path:
    (directory / registry.host).mkdir(parents=True)
    shutil.copy(registry.authority.certificate, directory / registry.host / "ca.crt")
    return directory


@pytest.fixture
def strict(monkeypatch):
    """Loopback is as any other network: certificates have to be right."""
    monkeypatch.setattr("sampan.registry.config.LOOPBACK", ())
    monkeypatch.setattr(
        "sampan.registry.hosts.RegistryConfig.is_insecure", lambda self, host: host in self.insecure
    )


def test_unknown_authority(guarded, strict):
    guarded.fill("mine", "v1")
    with pytest.raises(RegistryUnreachable, match="tls: failed to verify certificate"):
        open_repository(guarded, "mine", ME).resolve("v1")
    assert not any("?" in line for line in guarded.requests()[-1:])


def test_insecure_registry(guarded, strict):
    guarded.fill("mine", "v1")
    assert open_repository(guarded, "mine", ME, insecure=[guarded.host]).resolve("v1")


def test_docker_authority_file(guarded, strict, tmp_path):
    guarded.fill("mine", "v1")
    certs = certs_of(tmp_path, guarded)
    assert open_repository(guarded, "mine", ME, certs_directories=(certs,)).resolve("v1")


def test_plain_registry_is_refused_when_it_must_be_secure(plain, strict):
    plain.fill("read/it", "v1")
    with pytest.raises(RegistryUnreachable, match="tls"):
        open_repository(plain, "read/it").resolve("v1")


def test_client_certificates(strict, tmp_path):
    authority = Authority(tmp_path / "clients")
    certificate, key = authority.issue("skipper")
    with Registry(tmp_path / "registry", tls=True, client_authority=authority.certificate) as registry:
        certs = certs_of(tmp_path / "certs", registry)
        config = {"certs_directories": (certs,)}
        with pytest.raises(RegistryUnreachable):
            open_repository(registry, "x", **config).resolve("v1")
        shutil.copy(certificate, certs / registry.host / "skipper.cert")
        shutil.copy(key, certs / registry.host / "skipper.key")
        with pytest.raises(NotInRegistry):
            open_repository(registry, "x", **config).resolve("v1")


def test_hosts_toml_and_the_fall_through(plain, tmp_path):
    """A dead mirror and one without the image come first; the last one has it."""
    digest = plain.fill("deep", "v1", [{"big": os.urandom(50_000)}])
    with Registry(tmp_path / "empty") as empty:
        directory = tmp_path / "certs" / "registry.example"
        directory.mkdir(parents=True)
        (directory / "hosts.toml").write_text(
            f'server = "http://{plain.host}"\n'
            f'[host."http://127.0.0.1:{free_port()}"]\n[host."http://{empty.host}"]\n'
        )
        registry = registries(certs_directories=(tmp_path / "certs",))
        repository = registry.repository(parse("registry.example/deep"))
        data, descriptor = repository.manifest("v1")
        assert descriptor.digest == digest
        layer = layer_of(data)
        with repository.download(layer) as stream:
            assert digest_of(stream.read()) == layer.digest
        assert any(f"{layer.digest}?ns=registry.example 404" in line for line in empty.requests())


def test_mirror_of_the_hub(plain, tmp_path):
    """A mirror gets no credentials, and the Hub is not asked for what the mirror has."""
    digest = plain.fill("library/busybox", "v1")
    registry = registries(mirrors=[plain.url])
    repository = registry.repository(parse("busybox"), Credentials("me", "secret"))
    assert repository.resolve("v1").digest == digest
    assert repository.download(layer_of(repository.manifest("v1")[0])).read()


def test_nobody_there():
    repository = registries().repository(parse(f"127.0.0.1:{free_port()}/x"))
    with pytest.raises(RegistryUnreachable, match="connection refused"):
        repository.resolve("v1")


def test_manifest_of_another_digest(plain):
    """The registry's own storage has rotted."""
    digest = plain.fill("rot", "v1")
    path = plain.data / f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
    path.write_bytes(path.read_bytes().replace(b"layers", b"lAyers"))
    with pytest.raises(DigestMismatch):
        open_repository(plain, "rot").manifest(digest)
