"""The screens of `sampan ui`, driven by textual's pilot over a daemon that answers by rote."""

from __future__ import annotations

import asyncio
import http.server
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.css.query import NoMatches
from textual.pilot import Pilot
from textual.widgets import DataTable, RichLog, Static

from sampan.cli.graphs import graph
from sampan.cli.hosts import Host
from sampan.cli.ui.app import Ui, shell_words
from sampan.cli.ui.details import Details
from sampan.cli.ui.dialogs import Confirm
from sampan.cli.ui.figures import Figures
from sampan.cli.ui.logs import Logs
from sampan.cli.ui.source import unframed
from sampan.cli.ui.tables import TABLES, clean

SOURCE = Path(__file__).parents[3] / "src"
EVIL = "\x1b]0;owned\x07\x1b[31mred\x1b[0m\x07"


def container(name: str, state: str, **more: Any) -> dict[str, Any]:
    return {
        "Id": name.ljust(64, "0"), "Names": [f"/{name}"], "Image": "busybox", "ImageID": "sha256:1",
        "Command": "sleep 600", "Created": time.time() - 60, "State": state, "Status": f"{state} so",
        "Ports": [], **more,
    }  # fmt: skip


class Rote:
    """What the daemon has and was asked."""

    def __init__(self) -> None:
        self.containers = [container("ship", "running"), container("boat", "exited")]
        self.images = [
            {
                "Id": "sha256:" + "a" * 64,
                "RepoTags": ["busybox:latest"],
                "Created": 1_700_000_000,
                "Size": 10**6,
            }
        ]
        self.volumes = [{"Name": "cargo", "Driver": "local", "Mountpoint": "/v/cargo/_data"}]
        self.networks = [
            {"Id": "b" * 64, "Name": "bridge", "Driver": "bridge", "Scope": "local",
             "IPAM": {"Config": [{"Subnet": "172.20.0.0/16"}]}}
        ]  # fmt: skip
        self.asked: list[str] = []
        self.log = b"first\nsecond " + EVIL.encode() + b"\n"
        self.refuse = ""
        self.over = threading.Event()

    def answer(self, method: str, path: str) -> Any:
        if method == "GET" and path == "/containers/json":
            return self.containers
        lists = {
            "/images/json": self.images,
            "/volumes": {"Volumes": self.volumes},
            "/networks": self.networks,
        }
        if method == "GET" and path in lists:
            return lists[path]
        if path.endswith("/json"):
            return {"Id": path.split("/")[2], "Config": {"Tty": False}, "Note": EVIL}
        return {}


FRAME = {
    "cpu_stats": {"cpu_usage": {"total_usage": 200}, "system_cpu_usage": 2000, "online_cpus": 2},
    "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
    "memory_stats": {"usage": 1 << 20, "limit": 4 << 20},
    "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2000}},
    "pids_stats": {"current": 3},
}


@pytest.fixture
def rote(tmp_path: Path) -> Iterator[tuple[Rote, Host]]:
    state = Rote()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            path, _, query = self.path.partition("?")
            path = "/" + path.split("/", 2)[2]
            state.asked.append(f"{self.command} {path}" + (f"?{query}" if "force" in query else ""))
            if path == "/events" or path.endswith(("/logs", "/stats")):
                self._stream(path)
                return
            refused = state.refuse and self.command != "GET"
            body = json.dumps(
                {"message": state.refuse} if refused else state.answer(self.command, path)
            ).encode()
            self.send_response(409 if refused else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _serve

        def _stream(self, path: str) -> None:
            self.close_connection = True
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            if path.endswith("/logs"):
                half = len(state.log) // 2
                for part in (state.log[:half], state.log[half:]):
                    self.wfile.write(b"\1\0\0\0" + len(part).to_bytes(4, "big") + part)
                return
            if path.endswith("/stats"):
                self.wfile.write(json.dumps(FRAME).encode() + b"\n")
            self.wfile.flush()
            state.over.wait(30)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *arguments: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        address_family = socket.AF_UNIX
        daemon_threads = True

        def server_bind(self) -> None:
            self.socket.bind(self.server_address)

        def handle_error(self, request: Any, address: Any) -> None:
            pass  # a client that left

    path = str(tmp_path / "sock")
    server = Server(path, Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    host = Host(f"unix://{path}")
    host.path = path
    yield state, host
    state.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


Script = Callable[[Ui, "Pilot[None]"], Awaitable[None]]


def drive(host: Host, script: Script) -> None:
    """Run the screens without a terminal, and the script in them."""

    async def run() -> None:
        app = Ui(host)
        async with app.run_test(size=(120, 40)) as pilot:
            await until(lambda: app._table("containers").row_count > 0)
            await script(app, pilot)

    asyncio.run(run())


async def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not _holds(condition):
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


def _holds(condition: Callable[[], Any]) -> bool:
    try:
        return bool(condition())
    except NoMatches:
        return False  # the widget is not on the screen yet


def cells(app: Ui, kind: str) -> list[list[str]]:
    table: DataTable[Any] = app._table(kind)
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]


def said(app: Ui) -> str:
    return str(app.query_one("#said", Static).content)


def test_four_tables(rote: tuple[Rote, Host]) -> None:
    async def script(app: Ui, pilot: Pilot[None]) -> None:
        found = cells(app, "containers")
        assert [row[:3] for row in found] == [["●", "ship", "busybox"], ["○", "boat", "busybox"]]
        await until(lambda: app._table("networks").row_count)
        for key, kind, first in (
            ("2", "images", "busybox"),
            ("3", "volumes", "cargo"),
            ("4", "networks", "bridge"),
        ):
            await pilot.press(key)
            assert app.kind == kind
            await until(lambda kind=kind: app._table(kind).row_count)
            assert cells(app, kind)[0][0] == first
        assert "172.20.0.0/16" in cells(app, "networks")[0]

    drive(rote[1], script)


def test_the_keys_are_shown(rote: tuple[Rote, Host]) -> None:
    async def script(app: Ui, pilot: Pilot[None]) -> None:
        def shown() -> set[str]:
            return {one.binding.description for one in app.active_bindings.values() if one.binding.show}

        assert {"Quit", "Start/stop", "Logs", "Stats", "Exec", "Inspect", "Remove"} <= shown()
        await pilot.press("4")
        await pilot.pause()
        assert not {"Logs", "Exec", "Remove"} & shown()

    drive(rote[1], script)


def test_verbs(rote: tuple[Rote, Host]) -> None:
    state, host = rote
    ship, boat = (one["Id"] for one in state.containers)

    async def script(app: Ui, pilot: Pilot[None]) -> None:
        for key, request in (
            ("s", f"POST /containers/{ship}/stop"),
            ("r", f"POST /containers/{ship}/restart"),
            ("p", f"POST /containers/{ship}/pause"),
        ):
            await pilot.press(key)
            await until(lambda request=request: request in state.asked)
        await pilot.press("down", "s")
        await until(lambda: f"POST /containers/{boat}/start" in state.asked)
        await until(lambda: said(app) == "start boat: done")

    drive(host, script)


def test_what_is_lost_is_asked_for(rote: tuple[Rote, Host]) -> None:
    state, host = rote
    ship = state.containers[0]["Id"]
    removal = f"DELETE /containers/{ship}?force=1"

    async def script(app: Ui, pilot: Pilot[None]) -> None:
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, Confirm))
        assert "ship, which is running" in app.screen.question
        await pilot.press("n")
        await until(lambda: not isinstance(app.screen, Confirm))
        assert removal not in state.asked
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await until(lambda: removal in state.asked)

    drive(host, script)


def test_refusals_are_shown(rote: tuple[Rote, Host]) -> None:
    state, host = rote
    state.refuse = "You cannot do this [now]"

    async def script(app: Ui, pilot: Pilot[None]) -> None:
        await pilot.press("s")
        await until(lambda: said(app) == "Error response from daemon: You cannot do this [now]")
        assert app.query_one("#said").has_class("failed")

    drive(host, script)


def test_a_daemon_that_goes_away_and_comes_back(rote: tuple[Rote, Host]) -> None:
    _, host = rote

    async def script(app: Ui, pilot: Pilot[None]) -> None:
        path, host.path = host.path, "/nowhere"
        deadline = time.monotonic() + 20
        while "Cannot connect" not in said(app):
            assert time.monotonic() < deadline
            app.source.close()  # not while a request is under way: its connection is good still
            app.refresh_shown()
            await asyncio.sleep(0.1)
        host.path = path
        app.refresh_shown()
        await until(lambda: said(app) == "")

    drive(host, script)


def test_the_cursor_stays_with_its_container(rote: tuple[Rote, Host]) -> None:
    state, host = rote

    async def script(app: Ui, pilot: Pilot[None]) -> None:
        await pilot.press("down")
        assert app.selected().name == "boat"
        state.containers = [container("new", "running"), *state.containers]
        app.refresh_all()
        await until(lambda: app._table("containers").row_count == 3)
        assert app.selected().name == "boat"
        state.containers = [one for one in state.containers if one["Names"] != ["/boat"]]
        app.refresh_all()
        await until(lambda: app._table("containers").row_count == 2)
        assert app.selected() is not None

    drive(host, script)


def test_logs(rote: tuple[Rote, Host]) -> None:
    async def script(app: Ui, pilot: Pilot[None]) -> None:
        await pilot.press("l")
        await until(lambda: isinstance(app.screen, Logs) and app.screen.query_one(RichLog).lines)
        log = app.screen.query_one(RichLog)
        await until(lambda: len(log.lines) >= 3)
        text = [line.text.strip() for line in log.lines]
        assert text == ["first", "second red", "— the container has ended —"]
        await pilot.press("q")
        await until(lambda: not isinstance(app.screen, Logs))

    drive(rote[1], script)


def test_figures(rote: tuple[Rote, Host]) -> None:
    async def script(app: Ui, pilot: Pilot[None]) -> None:
        await pilot.press("t")
        await until(lambda: isinstance(app.screen, Figures))

        def title(key: str) -> str:
            return str(app.screen.query_one(f"#{key}-title", Static).content)

        await until(lambda: title("cpu"))
        assert title("cpu") == "CPU 20.00%"
        assert title("memory") == "Memory 1MiB / 4MiB (25.00%)"
        assert title("received").startswith("Network received 1kB")
        assert str(app.screen.query_one("#memory-graph", Static).content).endswith("▂")
        await pilot.press("q")

    drive(rote[1], script)


def test_inspect(rote: tuple[Rote, Host]) -> None:
    async def script(app: Ui, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, Details))
        await pilot.pause()
        text = "\n".join(line.text for line in app.screen.query_one(RichLog).lines)
        assert '"Tty": false' in text and "\x1b" not in text
        await pilot.press("q")

    drive(rote[1], script)


def test_no_shell_without_a_terminal_of_our_own(rote: tuple[Rote, Host]) -> None:
    async def script(app: Ui, pilot: Pilot[None]) -> None:
        await pilot.press("e")
        await until(lambda: "terminal" in said(app))
        await pilot.press("down", "e")
        await until(lambda: "not running" in said(app))

    drive(rote[1], script)


def test_nothing_of_an_images_words_steers_the_terminal() -> None:
    assert clean(EVIL) == "red"
    assert clean("a\tb\r\n\x9b31mc\x00") == "a    b31mc"
    evil = container("x", "running", Command=EVIL, Status=EVIL, Image=EVIL)
    (row,) = TABLES["containers"].rows([evil])
    assert not any(ord(character) < 32 for cell in row.cells for character in cell)


def test_graphs() -> None:
    assert graph([0, 1, 4, 8], 6) == "   ▁▄█"
    assert graph([50, 100, 0.1], 3, top=100.0) == "▄█▁"
    assert graph([], 3) == "   "
    assert graph(range(100), 4, top=1000) == "▁▁▁▁"


def test_frames_that_come_in_pieces() -> None:
    whole = b"\1\0\0\0\0\0\0\5hello\2\0\0\0\0\0\0\1!"
    for size in range(1, len(whole) + 1):
        pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
        assert b"".join(unframed(pieces)) == b"hello!"


def test_the_shell_is_at_the_same_daemon() -> None:
    words = shell_words(("--host=ssh://there",), "abc")
    assert words[1:7] == ["-m", "sampan.cli", "--host=ssh://there", "exec", "-it", "abc"]


def test_without_textual_or_a_terminal(rote: tuple[Rote, Host]) -> None:
    program = (
        "import sys, os; sys.modules['textual'] = None; os.isatty = lambda fd: {}\n"
        "from sampan.cli.app import dispatch; sys.exit(dispatch(sys.argv[1:]))"
    )
    for terminal, words in ((True, "pip install 'sampan[ui]'"), (False, "needs a terminal")):
        done = subprocess.run(
            [sys.executable, "-c", program.format(terminal), "-H", rote[1].url, "ui"],
            env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 1 and words in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
