"""Real registries on loopback: Debian's `docker-registry` (distribution), plain, with passwords, with TLS.

    with Registry(directory) as registry: …            plain HTTP at registry.host (127.0.0.1:port)
    Registry(directory, auth=True)                     user USER, password PASSWORD
    Registry(directory, tls=True)                      certificate by `registry.authority.certificate`

`registry.fill("name", "tag")` puts a small image there without any of our code; skopeo and the docker client
see the registry as they see any other.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

USER = "ahoy"
PASSWORD = "a secret of the harbour"
# bcrypt of PASSWORD, at the least cost
_HASH = "$2b$04$abcdefghijklmnopqrstuufEYkBNvIIe0whATMMUai74eAv26hcbG"

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


def free_port() -> int:
    """A TCP port of loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Authority:
    """A made certificate authority in a directory, and certificates by it."""

    directory: Path
    certificate: Path = field(init=False)
    key: Path = field(init=False)

    def __post_init__(self) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("needs the program openssl")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.certificate, self.key = self.directory / "ca.crt", self.directory / "ca.key"
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(self.key), "-out", str(self.certificate), "-days", "2"),
            *(
                "-subj",
                "/CN=sampan test authority",
                "-addext",
                "keyUsage=critical,keyCertSign,digitalSignature",
            ),
        )

    def issue(self, name: str, *alternatives: str) -> tuple[Path, Path]:
        """A certificate and its key, for `DNS:…` and `IP:…` names; without any it is a client's."""
        certificate, key = self.directory / f"{name}.cert", self.directory / f"{name}.key"
        request, extra = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        purpose = "serverAuth" if alternatives else "clientAuth"
        names = f"subjectAltName={','.join(alternatives)}\n" if alternatives else ""
        extra.write_text(f"extendedKeyUsage={purpose}\n{names}")
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(key), "-out", str(request), "-subj", f"/CN={name}"),
        )
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self.key)),
            *("-CAcreateserial", "-out", str(certificate), "-days", "2", "-extfile", str(extra)),
        )
        return certificate, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Registry:
    """A running docker-registry.

    Args:
        directory: for its configuration, its data and its log; created when missing.
        auth: demand USER and PASSWORD (Basic).
        tls: serve TLS, with a certificate for 127.0.0.1, localhost and `hostname`.
        upstream: be a pull-through mirror of this URL.
        name: the host part of `host`.
        client_authority: demand a client certificate that it signed.
        tokens: demand tokens; the options of its `auth.token`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        auth: bool = False,
        tls: bool = False,
        upstream: str = "",
        name: str = "127.0.0.1",
        client_authority: Path | None = None,
        tokens: dict[str, str] | None = None,
    ) -> None:
        if shutil.which("docker-registry") is None:
            pytest.skip("needs the program docker-registry (Debian: docker-registry)")
        self.directory = directory
        self.auth = auth
        self.port = free_port()
        self.host = f"{name}:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        self.log = directory / "registry.log"
        self.data = directory / "data"
        self.authority: Authority | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.data.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {
            "version": "0.1",
            "log": {"level": "info", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.data)},
                "delete": {"enabled": True},
                "redirect": {"disable": True},
            },
            "validation": {"manifests": {"urls": {"allow": ["^https?://"]}}},
            "http": {"addr": f"127.0.0.1:{self.port}", "net": "tcp"},
        }
        if auth:
            passwords = directory / "htpasswd"
            passwords.write_text(f"{USER}:{_HASH}\n")
            options["auth"] = {"htpasswd": {"realm": "harbour", "path": str(passwords)}}
        if tls:
            self.authority = Authority(directory / "authority")
            certificate, key = self.authority.issue("server", "IP:127.0.0.1", "DNS:localhost", f"DNS:{name}")
            options["http"]["tls"] = {"certificate": str(certificate), "key": str(key)}
            if client_authority is not None:
                options["http"]["tls"]["clientcas"] = [str(client_authority)]
        if tokens:
            options["auth"] = {"token": tokens}
        if upstream:
            options["proxy"] = {"remoteurl": upstream}
        (directory / "config.yml").write_text(json.dumps(options))  # JSON is YAML

    def start(self) -> Registry:
        """Start, and wait until it answers."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        environment["OTEL_TRACES_EXPORTER"] = "none"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(self.directory / "config.yml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"docker-registry does not answer:\n{self.log.read_text()[-3000:]}")
                time.sleep(0.02)

    def stop(self) -> None:
        """End it; its data stays."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def __enter__(self) -> Registry:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- talking to it, without our code ---

    def __call__(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request below /v2: status, headers (names in lower case), body."""
        sent = dict(headers or {})
        if self.auth:
            sent["Authorization"] = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.authority is not None:
            context = ssl.create_default_context(cafile=str(self.authority.certificate))
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=context)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)  # type: ignore[assignment]
        try:
            target = path if path.startswith("/v2/") else f"/v2/{path}"
            connection.request(method, target, body=body, headers=sent)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def put_blob(self, repository: str, data: bytes) -> str:
        """Upload a blob; its digest."""
        digest = digest_of(data)
        status, headers, body = self("POST", f"{repository}/blobs/uploads/")
        assert status == 202, body
        parts = urlsplit(headers["location"])
        location = f"{parts.path}?{parts.query}" if parts.query else parts.path
        mark = "&" if "?" in location else "?"
        status, _, body = self("PUT", f"{location}{mark}digest={digest}", data)
        assert status == 201, body
        return digest

    def put_manifest(
        self, repository: str, tag: str, document: dict[str, Any] | bytes, kind: str = ""
    ) -> str:
        """Upload a manifest or index under a tag or digest; its digest."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        kind = kind or json.loads(data)["mediaType"]
        status, headers, body = self("PUT", f"{repository}/manifests/{tag}", data, {"Content-Type": kind})
        assert status == 201, body
        return headers["docker-content-digest"]

    def fill(
        self,
        repository: str,
        tag: str,
        layers: list[dict[str, bytes]] | None = None,
        config: dict[str, Any] | None = None,
        architecture: str = "amd64",
    ) -> str:
        """Put an image of small gzip layers there (file name -> content); the manifest's digest."""
        blobs, diff_ids = [], []
        for files in layers if layers is not None else [{"hello.txt": b"ahoy\n"}]:
            plain = layer_tar(files)
            packed = gzip.compress(plain, mtime=0)
            diff_ids.append(digest_of(plain))
            blobs.append(
                {
                    "mediaType": OCI_LAYER_GZIP,
                    "digest": self.put_blob(repository, packed),
                    "size": len(packed),
                }
            )
        document = json.dumps(
            {
                "architecture": architecture,
                "os": "linux",
                "config": config or {"Cmd": ["/hello"]},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
                "history": [{"created_by": f"layer {number}"} for number in range(len(diff_ids))],
            }
        ).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": OCI_CONFIG,
                "digest": self.put_blob(repository, document),
                "size": len(document),
            },
            "layers": blobs,
        }
        return self.put_manifest(repository, tag, manifest)

    def manifest(self, repository: str, tag: str) -> tuple[dict[str, Any], str]:
        """A manifest as it is there, and its digest."""
        accept = f"{OCI_MANIFEST}, {OCI_INDEX}, application/vnd.docker.distribution.manifest.v2+json"
        status, headers, body = self("GET", f"{repository}/manifests/{tag}", headers={"Accept": accept})
        assert status == 200, body
        return json.loads(body), headers["docker-content-digest"]

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether the repository has this blob."""
        return self("HEAD", f"{repository}/blobs/{digest}")[0] == 200

    def requests(self) -> list[str]:
        """What it was asked so far, as `METHOD path status`."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            quoted = line.split('"')
            if len(quoted) > 2 and "HTTP/1." in quoted[1]:
                method, path, _ = quoted[1].split(" ")
                found.append(f"{method} {path} {quoted[2].split()[0]}")
        return found


def digest_of(data: bytes) -> str:
    """The sha256 digest."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer_tar(files: dict[str, bytes]) -> bytes:
    """A layer's tar with these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o755, 1_700_000_000
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
