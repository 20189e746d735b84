"""Our registry seen by programs of others: the docker client with a real dockerd, skopeo, umoci, podman."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import pytest

from support.needs import program
from support.own_registry import PASSWORD, USER, OwnRegistry
from support.registry import layer_tar

DENIED = re.compile("authoriz|authentication required|denied")


def run(*words: str, stdin: bytes | None = None, code: int | None = 0, **environment: str) -> str:
    """Run a program; what it said, on both streams."""
    done = subprocess.run(
        words, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=110, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip
    said = done.stdout.decode(errors="replace")
    ended = 1 if words[0] == "skopeo" and done.returncode == 2 else done.returncode  # newer ones: not found
    assert code is None or ended == code, f"{' '.join(words)}: {done.returncode}\n{said[-3000:]}"
    return said


# --- skopeo, umoci, podman ---


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with OwnRegistry(tmp_path_factory.mktemp("foreign")) as started:
        yield started


@program("skopeo")
def test_skopeo_copies_both_ways(registry, tmp_path):
    registry.fill("from/here", "v1", [{"a": os.urandom(100_000)}, {"b": b"x"}])
    plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
    there, here = f"docker://{registry.host}/to/there:v2", f"docker://{registry.host}/from/here:v1"
    run("skopeo", "copy", *plain, here, f"dir:{tmp_path}/out")
    run("skopeo", "copy", *plain, f"dir:{tmp_path}/out", there)
    assert registry.manifest("to/there", "v2") == registry.manifest("from/here", "v1")
    run("skopeo", "copy", *plain, "--format", "v2s2", here, f"docker://{registry.host}/to/docker:v2")
    manifest, _ = registry.manifest("to/docker", "v2")
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    found = json.loads(run("skopeo", "inspect", "--tls-verify=false", there))
    assert (found["RepoTags"], found["Architecture"], len(found["Layers"])) == (["v2"], "amd64", 2)
    assert json.loads(run("skopeo", "list-tags", "--tls-verify=false", f"docker://{registry.host}/to/there"))[
        "Tags"
    ] == ["v2"]
    run("skopeo", "delete", "--tls-verify=false", there)
    assert "manifest unknown" in run("skopeo", "inspect", "--tls-verify=false", there, code=1)


@program("skopeo")
def test_skopeo_syncs_a_repository(registry, tmp_path):
    for tag in ("one", "two", "three"):
        registry.fill("sync/me", tag, [{tag: tag.encode()}])
    flags = ("--src-tls-verify=false", "--dest-tls-verify=false")
    run(
        "skopeo",
        "sync",
        *flags,
        "--src",
        "docker",
        "--dest",
        "dir",
        f"{registry.host}/sync/me",
        str(tmp_path),
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["me:one", "me:three", "me:two"]
    run(
        "skopeo", "sync", *flags, "--src", "dir", "--dest", "docker", str(tmp_path), f"{registry.host}/synced"
    )
    for tag in ("one", "two", "three"):
        assert registry.manifest("synced/me", tag) == registry.manifest("sync/me", tag)


@program("skopeo")
def test_skopeo_with_password_and_tls(tmp_path):
    with OwnRegistry(tmp_path / "r", auth=True, tls=True) as registry:
        digest = registry.fill("private/image", "v1")
        certificates = tmp_path / "certificates"
        certificates.mkdir()
        shutil.copy(registry.authority.certificate, certificates / "ca.crt")
        place = f"docker://{registry.host}/private/image:v1"
        flags = ("skopeo", "inspect", "--cert-dir", str(certificates))
        assert json.loads(run(*flags, "--creds", f"{USER}:{PASSWORD}", place))["Digest"] == digest
        assert DENIED.search(run(*flags, "--creds", f"{USER}:wrong", place, code=1))
        assert "authentication required" in run(*flags, "--no-creds", place, code=1)


@program("umoci")
@program("skopeo")
def test_umoci_changes_what_it_pulled(registry, tmp_path):
    registry.fill("umoci/image", "v1")
    layout = f"{tmp_path}/layout"
    run(
        "skopeo",
        "copy",
        "--src-tls-verify=false",
        f"docker://{registry.host}/umoci/image:v1",
        f"oci:{layout}:v1",
    )
    run("umoci", "config", "--image", f"{layout}:v1", "--config.user", "nobody", "--tag", "v2")
    run(
        "skopeo",
        "copy",
        "--dest-tls-verify=false",
        f"oci:{layout}:v2",
        f"docker://{registry.host}/umoci/image:v2",
    )
    found = json.loads(
        run("skopeo", "inspect", "--tls-verify=false", "--config", f"docker://{registry.host}/umoci/image:v2")
    )
    assert found["config"]["User"] == "nobody"


@program("podman")
@pytest.mark.root
def test_podman_pushes_and_pulls(registry, tmp_path):
    runroot = tempfile.mkdtemp(prefix="st-")  # it takes no path of more than 50 characters
    podman = (
        "podman", "--root", f"{tmp_path}/root", "--runroot", runroot, "--storage-driver", "vfs",
        "--cgroup-manager", "cgroupfs",
    )  # fmt: skip
    (tmp_path / "layer.tar").write_bytes(layer_tar({"hello": b"from podman\n"}))
    place = f"{registry.host}/podman/image:v1"
    try:
        run(*podman, "import", str(tmp_path / "layer.tar"), place)
        run(*podman, "push", "--tls-verify=false", place)
        image = run(*podman, "inspect", "--format", "{{.Id}}", place)
        run(*podman, "rmi", place)
        run(*podman, "pull", "--tls-verify=false", place)
        assert run(*podman, "inspect", "--format", "{{.Id}}", place) == image
        search = run(*podman, "search", "--tls-verify=false", f"{registry.host}/podman")
        assert f"{registry.host}/podman/image" in search
    finally:
        run(*podman, "rmi", "--all", "--force", code=None)
        shutil.rmtree(runroot, ignore_errors=True)


# --- docker ---


class Docker:
    """A real dockerd in a network and a mount namespace of its own, where a registry can join it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.socket = f"{directory}/docker.sock"
        inside = (
            "mount --make-rprivate / && ip link set lo up && exec dockerd"
            f" -H unix://{self.socket} --data-root {directory}/data --exec-root {directory}/exec"
            f" --pidfile {directory}/pid --bridge none --iptables=false --ip-forward=false"
            " --storage-driver vfs --insecure-registry 127.0.0.0/8"
        )
        self.log = directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--net", "--mount", "sh", "-c", inside],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.inside = ["nsenter", "--target", str(self.process.pid), "--net", "--"]
        deadline = time.monotonic() + 90
        while "Server:" not in self("info", code=None):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                pytest.skip(f"dockerd does not start here: {self.log.read_text()[-500:]}")
            time.sleep(0.2)

    def __call__(self, *words: str, stdin: bytes | None = None, code: int | None = 0) -> str:
        config = str(self.directory / "client")
        return run(
            "docker", "-H", f"unix://{self.socket}", *words, stdin=stdin, code=code, DOCKER_CONFIG=config
        )

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        self.process.kill()
        self.process.wait(10)


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    for name in ("docker", "dockerd", "unshare", "nsenter"):
        if shutil.which(name) is None:
            pytest.skip(f"needs the program {name}")
    started = Docker(Path("/tmp") / f"sampan-test-docker-{os.getpid()}")
    yield started
    started.stop()
    shutil.rmtree(started.directory, ignore_errors=True)


@pytest.fixture
def beside(docker, tmp_path):
    """A registry where dockerd reaches it by loopback."""
    with OwnRegistry(tmp_path / "registry", name="localhost", prefix=docker.inside) as registry:
        yield registry


@pytest.mark.root
@pytest.mark.timeout(180)
def test_docker_pushes_pulls_and_searches(docker, beside):
    data = os.urandom(2_000_000)
    place = f"{beside.host}/team/app"
    docker("import", "-", f"{place}:v1", stdin=layer_tar({"data": data}))
    said = docker("push", f"{place}:v1")
    assert "v1: digest: sha256:" in said
    image = docker("inspect", "--format", "{{.Id}}", f"{place}:v1")
    docker("tag", f"{place}:v1", f"{beside.host}/other/place:latest")
    assert "Mounted from team/app" in docker("push", f"{beside.host}/other/place:latest")
    assert "Layer already exists" in docker("push", f"{place}:v1")
    docker("rmi", f"{place}:v1", f"{beside.host}/other/place:latest")
    docker("pull", f"{place}:v1")
    assert docker("inspect", "--format", "{{.Id}}", f"{place}:v1") == image
    with tarfile.open(fileobj=io.BytesIO(_saved(docker, f"{place}:v1"))) as saved:
        layer = next(member for member in saved if member.isfile() and member.size > 1_000_000)
        with tarfile.open(fileobj=saved.extractfile(layer)) as inner:
            assert inner.extractfile("data").read() == data
    assert "manifest for" in docker("pull", f"{place}:v2", code=1)
    assert "not found" in docker("pull", f"{beside.host}/no/such:v1", code=1)
    found = docker("search", f"{beside.host}/team")
    assert "team/app" in found
    assert "other/place" not in found
    assert "other/place" in docker("search", f"{beside.host}/place")
    digest = docker("inspect", "--format", "{{index .RepoDigests 0}}", f"{place}:v1").strip()
    docker("rmi", f"{place}:v1", code=None)
    docker("pull", digest)
    docker("rmi", digest, code=None)


def _saved(docker: Docker, image: str) -> bytes:
    words = ["docker", "-H", f"unix://{docker.socket}", "save", image]
    return subprocess.run(words, stdout=subprocess.PIPE, check=True, timeout=60).stdout


@pytest.mark.root
@pytest.mark.timeout(180)
def test_docker_logs_in(docker, tmp_path):
    with OwnRegistry(tmp_path / "registry", auth=True, name="localhost", prefix=docker.inside) as registry:
        place = f"{registry.host}/private/app:v1"
        docker("import", "-", place, stdin=layer_tar({"x": b"y"}))
        assert "no basic auth credentials" in docker("push", place, code=1)
        assert "401 Unauthorized" in docker(
            "login", "-u", USER, "--password-stdin", registry.host, stdin=b"wrong", code=1
        )
        assert "Login Succeeded" in docker(
            "login", "-u", USER, "--password-stdin", registry.host, stdin=PASSWORD.encode()
        )
        docker("push", place)
        docker("rmi", place)
        docker("pull", place)
        docker("rmi", place)
        docker("logout", registry.host)


@pytest.mark.root
@pytest.mark.timeout(180)
def test_docker_pulls_through_a_cache(docker, beside, tmp_path):
    docker("import", "-", f"{beside.host}/team/app:v1", stdin=layer_tar({"data": os.urandom(500_000)}))
    docker("push", f"{beside.host}/team/app:v1")
    image = docker("inspect", "--format", "{{.Id}}", f"{beside.host}/team/app:v1")
    docker("rmi", f"{beside.host}/team/app:v1")
    flags = ("--proxy", f"http://127.0.0.1:{beside.port}")
    with OwnRegistry(tmp_path / "cache", *flags, name="localhost", prefix=docker.inside) as cache:
        for _ in range(3):
            docker("pull", f"{cache.host}/team/app:v1")
            assert docker("inspect", "--format", "{{.Id}}", f"{cache.host}/team/app:v1") == image
            docker("rmi", f"{cache.host}/team/app:v1")
        blobs = [line for line in beside.requests() if line.startswith("GET /v2/team/app/blobs/")]
        assert len(blobs) == len(set(blobs)) == 2
        docker("import", "-", f"{cache.host}/team/new:v1", stdin=layer_tar({"new": b"one"}))
        assert "this registry is a cache of" in docker("push", f"{cache.host}/team/new:v1", code=1)


# --- tokens ---


@program("skopeo")
def test_skopeo_gets_a_token(tmp_path):
    """An authorization service of a few lines, its tokens signed by a key that our bundle knows."""
    import base64
    import http.server
    import threading
    from urllib.parse import parse_qs, urlsplit

    import jwt

    from support.registry import Authority

    authority = Authority(tmp_path / "authority")
    certificate, key = authority.issue("signer")
    der = base64.b64decode("".join(certificate.read_text().split("-----")[2].split()))
    granted = {"somebody": ["pull", "push"], "reader": ["pull"]}

    class Service(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            user = (
                base64.b64decode(self.headers.get("Authorization", "Basic ")[6:]).decode().partition(":")[0]
            )
            access = []
            for scope in query.get("scope", []):
                kind, name, actions = scope.rsplit(":", 2) if scope.count(":") == 2 else ("", "", "")
                allowed = [action for action in actions.split(",") if action in granted.get(user, [])]
                access.append({"type": kind, "name": name, "actions": allowed})
            claims = {"iss": "harbour", "aud": query["service"][0], "sub": user, "access": access}
            token = jwt.encode(
                {**claims, "exp": time.time() + 60}, key.read_text(), "ES256",
                {"x5c": [base64.b64encode(der).decode()]},
            )  # fmt: skip
            body = json.dumps({"token": token}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        try:
            flags = [
                "--token-realm", f"http://127.0.0.1:{service.server_address[1]}/token",
                "--token-service", "our registry", "--token-issuer", "harbour",
                "--token-bundle", str(authority.certificate),
            ]  # fmt: skip
            with OwnRegistry(tmp_path / "registry", *flags) as registry:
                place = f"docker://{registry.host}/team/app:v1"
                (tmp_path / "layer.tar").write_bytes(layer_tar({"x": b"y"}))
                run("umoci", "init", "--layout", f"{tmp_path}/layout")
                run("umoci", "new", "--image", f"{tmp_path}/layout:v1")
                copy = ("skopeo", "copy", "--dest-tls-verify=false", f"oci:{tmp_path}/layout:v1", place)
                run(*copy, "--dest-creds", "somebody:x")
                inspect = ("skopeo", "inspect", "--tls-verify=false", place)
                assert json.loads(run(*inspect, "--creds", "reader:x"))["RepoTags"] == ["v1"]
                assert DENIED.search(run(*copy[:-1], f"{place}2", "--dest-creds", "reader:x", code=1))
                assert DENIED.search(run(*inspect, "--creds", "nobody:x", code=1))
        finally:
            service.shutdown()
            thread.join()
