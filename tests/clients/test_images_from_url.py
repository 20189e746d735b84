"""`import` of a URL, which the daemon fetches."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator

import pytest

from support.cli import Cli
from support.engine import Engine
from support.images import busybox_tar


class Web(http.server.BaseHTTPRequestHandler):
    """A few files, and servers' usual tricks."""

    def do_GET(self) -> None:
        data = gzip.compress(busybox_tar()) if self.path.endswith(".gz") else busybox_tar()
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/root.tar")
            self.end_headers()
        elif self.path == "/circle":
            self.send_response(301)
            self.send_header("Location", "/circle")
            self.end_headers()
        elif self.path == "/to-a-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/shadow")
            self.end_headers()
        elif self.path == "/gone":
            self.send_error(404, "no such thing")
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[:100_000] if self.path == "/torn" else data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """The address of a web server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.dealt
@pytest.mark.parametrize("path", ["root.tar", "root.tar.gz", "moved"])
def test_import_of_a_url(cli: Cli, engine: Engine, web: str, path: str, name: Callable[[], str]) -> None:
    reference = f"web-{name()}"
    said = cli("import", "-c", "ENV A=b", f"http://{web}/{path}", reference).lines
    shown = engine.api.get(f"/images/{reference}/json")
    assert said[0] == f"Downloading from http://{web}/{path}"
    assert said[-1] == shown["Id"]
    assert shown["RootFS"]["Layers"] == ["sha256:" + hashlib.sha256(busybox_tar()).hexdigest()]
    assert shown["Comment"] == f"Imported from http://{web}/{path}"
    assert cli("run", "--rm", reference, "sh", "-c", "echo $A").out == "b\n"
    cli("rmi", reference)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gone", "with status 404"),
        ("circle", "stopped after 10 redirects"),
        ("to-a-file", "only http and https are fetched"),
        ("torn", "unexpected EOF"),
    ],
)
def test_urls_that_give_no_image(cli: Cli, engine: Engine, web: str, path: str, message: str) -> None:
    before = engine.api.get("/images/json?all=1")
    assert message in cli("import", f"http://{web}/{path}", "web:never", code=1).err
    assert engine.api.get("/images/json?all=1") == before


def test_nobody_there_and_nothing_to_fetch(cli: Cli, engine: Engine, web: str) -> None:
    assert "connect" in cli("import", "http://127.0.0.1:1/x", code=1).err
    for source, text in (
        ("ftp://x/y", "only http and https"),
        ("http://", "invalid URL"),
        ("file:///etc", "only http"),
    ):
        assert text in engine.api("POST", f"/images/create?fromSrc={source}", b"").message
    host = web.replace(":", "%3A")
    answer = engine.api("POST", f"/images/create?fromSrc={host}/root.tar&repo=web&tag=bare", b"")
    assert b'"status":"sha256:' in answer.body
    engine.api("DELETE", "/images/web:bare")
