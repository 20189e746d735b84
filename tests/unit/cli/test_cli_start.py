"""What the start path may import: every module costs each user of each command, each time."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"
# Beyond what a bare interpreter has; nothing here may grow without a measurement.
STANDARD = {"__future__", "_json", "_socket"}
OWN = {"", ".cli", ".cli.app", ".cli.failures", ".cli.flags", ".cli.tree"}
PS = (
    OWN
    | {
        f".cli.{name}"
        for name in ("client", "hosts", "commands", "commands.ps", "human", "listing", "jsontext")
    }
    | {".places", ".durations"}
)

PROGRAM = """
import os, sys
before = set(sys.modules)
sys.path.insert(0, {source!r})
def report(code):
    os.write(2, "\\n".join(sorted(set(sys.modules) - before)).encode())
    real(code)
real, os._exit = os._exit, report
from sampan.cli import main
main()
"""


def imported(words, **environment):
    program = PROGRAM.format(source=str(SOURCE))
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split()), done.stdout


@pytest.fixture
def daemon(tmp_path):
    """A socket that answers every request with an empty list."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = json.dumps([]).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self):
            return "unix"

        def log_message(self, *arguments):
            pass

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_UNIX
        daemon_threads = True

        def server_bind(self):
            self.socket.bind(self.server_address)

    path = str(tmp_path / "sock")
    server = Server(path, Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"unix://{path}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_version_imports_next_to_nothing():
    modules, text = imported(["--version"])
    assert text.startswith("Sampan version ")
    assert {name.removeprefix("sampan") for name in modules if name.startswith("sampan")} <= OWN
    assert {name for name in modules if not name.startswith("sampan")} <= STANDARD


def test_ps_imports_what_it_needs(daemon):
    modules, text = imported(["ps"], SAMPAN_HOST=daemon)
    assert text == "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES\n"
    assert {name.removeprefix("sampan") for name in modules if name.startswith("sampan")} <= PS
    assert {name for name in modules if not name.startswith("sampan")} <= STANDARD
