"""Registries behind a proxy: plain requests to it, CONNECT tunnels through it, and its own password."""

import base64
import contextlib
import socket
import threading

import pytest

from sampan.oci.reference import parse
from sampan.registry import Credentials, Proxies, Registries, RegistryConfig, RegistryUnreachable
from support.registry import PASSWORD, USER, Registry

LOGIN = base64.b64encode(b"me:pw").decode()


class Proxy:
    """An HTTP proxy that reaches every host on loopback, whatever its name."""

    def __init__(self, demand: str = "") -> None:
        self.demand = demand
        self.asked: list[str] = []
        self._clients: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client):
        with client, client.makefile("rb") as stream:
            client.settimeout(10)
            line = stream.readline().decode()
            head = []
            while (header := stream.readline()) not in (b"\r\n", b""):
                head.append(header)
            if not line:
                return
            self.asked.append(line.strip())
            if self.demand and f"Basic {self.demand}".encode() not in b"".join(head):
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            method, target, _ = line.split()
            authority = target if method == "CONNECT" else target.split("/")[2]
            with socket.create_connection(("127.0.0.1", int(authority.rpartition(":")[2])), 10) as server:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                else:
                    path = "/" + target.split("/", 3)[3]
                    kept = [one for one in head if not one.lower().startswith(b"connection")]
                    server.sendall(f"{method} {path} HTTP/1.1\r\n".encode() + b"".join(kept))
                    server.sendall(b"Connection: close\r\n\r\n")
                back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
                back.start()
                self._copy(client, server)
                back.join(10)

    @staticmethod
    def _copy(source, target):
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def registries(tmp_path, proxies: Proxies, registry: Registry, **settings) -> Registries:
    certs = tmp_path / "certs" / f"harbour.example:{registry.port}"
    certs.mkdir(parents=True)
    if registry.authority is not None:
        (certs / "ca.crt").write_bytes(registry.authority.certificate.read_bytes())
    return Registries(
        RegistryConfig(
            certs_directories=(tmp_path / "certs",), proxies=proxies, retry_delay_s=0.01, **settings
        )
    )


@pytest.fixture(autouse=True)
def unknown_name(monkeypatch):
    """The registry's name is known to the proxy alone."""
    monkeypatch.setattr("sampan.registry.config._addresses", lambda name: [])


def test_tunnel(tmp_path):
    with Registry(tmp_path / "r", auth=True, tls=True, name="harbour.example") as registry, Proxy() as proxy:
        registry.host, host = f"127.0.0.1:{registry.port}", registry.host
        digest = registry.fill("x", "v1")
        found = registries(tmp_path, Proxies(https=f"http://{proxy.host}"), registry)
        repository = found.repository(parse(f"{host}/x"), Credentials(USER, PASSWORD))
        assert repository.resolve("v1").digest == digest
        assert [line.rpartition(" ")[0] for line in proxy.asked] == [f"CONNECT {host}"]


def test_plain(tmp_path):
    with Registry(tmp_path / "r") as registry, Proxy() as proxy:
        digest = registry.fill("x", "v1")
        host = f"harbour.example:{registry.port}"
        found = registries(tmp_path, Proxies(http=f"http://{proxy.host}"), registry, insecure=[host])
        assert found.repository(parse(f"{host}/x")).resolve("v1").digest == digest
        assert proxy.asked == [f"HEAD http://{host}/v2/x/manifests/v1 HTTP/1.1"]


def test_proxy_with_a_password(tmp_path):
    with Registry(tmp_path / "r", tls=True, name="harbour.example") as registry, Proxy(LOGIN) as proxy:
        registry.host, host = f"127.0.0.1:{registry.port}", registry.host
        registry.fill("x", "v1")
        refused = registries(tmp_path / "a", Proxies(https=f"http://{proxy.host}"), registry)
        with pytest.raises(RegistryUnreachable, match="407"):
            refused.repository(parse(f"{host}/x")).resolve("v1")
        allowed = registries(tmp_path / "b", Proxies(https=f"http://me:pw@{proxy.host}"), registry)
        assert allowed.repository(parse(f"{host}/x")).resolve("v1")
