"""Attached connections byte by byte: leaving HTTP both ways, frames, half-closing, logs before the stream."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import websocket

from support.engine import Engine
from support.machine import eventually

Names = Callable[[], str]
LINES = "yes $(head -c 999 /dev/zero | tr '\\0' y)"  # without end, 1000 bytes each


def attach(
    engine: Engine, container: str, query: str, upgrade: bool = True
) -> tuple[socket.socket, str, bytes]:
    """Attach; the connection, the answer's head, and what came behind it already."""
    end = socket.socket(socket.AF_UNIX)
    end.settimeout(20)
    end.connect(engine.socket)
    lines = [
        f"POST /v1.44/containers/{container}/attach?{query} HTTP/1.1",
        "Host: docker",
        "Content-Length: 0",
    ]
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: tcp"]
    end.sendall("\r\n".join([*lines, "", ""]).encode())
    data = b""
    while b"\r\n\r\n" not in data:
        piece = end.recv(4096)
        assert piece, data
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return end, head.decode(), rest


def read_all(end: socket.socket, data: bytes = b"") -> bytes:
    """Everything up to the end."""
    pieces = [data]
    while piece := end.recv(65536):
        pieces.append(piece)
    end.close()
    return b"".join(pieces)


def framed(text: bytes, stream: int = 1) -> bytes:
    """As the server frames a piece of output."""
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text


def monitor_of(pid: int) -> int:
    """The parent of a container's first process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def resident_kib(pid: int) -> int:
    """The memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def gone(end: socket.socket) -> bool:
    """Whether the other side has closed a connection, whatever is left to read from it."""
    poll = select.poll()
    poll.register(end, select.POLLRDHUP)
    return bool(poll.poll(0))


def make(engine: Engine, name: str, *words: str) -> str:
    """A created container."""
    engine.docker("create", "--name", name, *words)
    return name


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("upgrade", [False, True])
def test_both_ways_to_leave_http(engine: Engine, busybox: str, name: Names, tty: bool, upgrade: bool) -> None:
    one = make(engine, name(), *(["-t"] if tty else []), busybox, "echo", "hello")
    end, head, rest = attach(engine, one, "stream=1&stdout=1&stderr=1", upgrade)
    assert head.startswith("HTTP/1.1 101 " if upgrade else "HTTP/1.1 200 ")
    assert ("Upgrade: tcp" in head) == upgrade
    kind = "raw" if tty or not upgrade else "multiplexed"
    assert kind == "raw" or f"Content-Type: application/vnd.docker.{kind}-stream" in head
    engine.docker("start", one)
    assert read_all(end, rest) == (b"hello\r\n" if tty else framed(b"hello\n"))


def test_logs_come_before_the_stream(engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    script = "echo early; echo wrong >&2; read x; echo late $x"
    engine.docker("run", "-d", "-i", "--name", one, busybox, "sh", "-c", script)
    eventually(lambda: engine.docker("logs", one).out == "early\n")
    end, _, rest = attach(engine, one, "logs=1&stream=1&stdout=1&stdin=1")
    end.sendall(b"input\n")
    assert read_all(end, rest) == framed(b"early\n") + framed(b"late input\n")


def test_between_the_logs_and_the_stream_nothing_is_lost_or_twice(
    engine: Engine, busybox: str, name: Names
) -> None:
    """Of a container that never stops writing, in a log that is rotated and compressed."""
    options = [f"--log-opt={one}" for one in ("max-size=50k", "max-file=4", "compress=true")]
    script = "printf '? '; read x; awk 'BEGIN { while (1) print ++i }'"
    one = make(engine, name(), "-ti", *options, busybox, "sh", "-c", script)
    engine.docker("start", one)
    for least in (1, 300_000):  # a log has less
        end, _, rest = attach(engine, one, "logs=1&stream=1&stdout=1&stdin=1")
        data = rest
        while len(data) < least:
            piece = end.recv(65536)
            assert piece
            data += piece
        if least == 1:
            assert data == b"? ", "a line that waits for its end is no line of the log yet"
            end.sendall(b"\n")
        else:
            lines = data.split(b"\r\n")[3:-1]
            numbers = [*map(int, lines)]
            assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]
        end.close()
    engine.docker("rm", "-f", one)


def test_who_is_given_the_logs_of_a_container_that_ends_has_all(
    engine: Engine, busybox: str, name: Names
) -> None:
    one = make(engine, name(), "-ti", busybox, "sh", "-c", f"{LINES} | head -n 900; read x; echo END")
    engine.docker("start", one)
    eventually(lambda: engine.docker("logs", one).out.count("y") == 900 * 999)
    end, _, rest = attach(engine, one, "logs=1&stream=1&stdout=1&stdin=1")
    end.sendall(b"\n")
    engine.docker("wait", one)
    text = read_all(end, rest)
    assert text.count(b"y") == 900 * 999 and text.endswith(b"\r\nEND\r\n")


def test_a_start_waits_for_who_is_being_given_the_old_log(engine: Engine, busybox: str, name: Names) -> None:
    script = "test -e /ran || head -c 2000000 /dev/zero | tr '\\0' y; touch /ran; echo END"
    one = make(engine, name(), "-t", busybox, "sh", "-c", script)
    engine.docker("start", one)
    engine.docker("wait", one)
    end, _, rest = attach(engine, one, "logs=1&stream=1&stdout=1")
    with ThreadPoolExecutor(1) as pool:
        started = pool.submit(engine.docker, "start", one)
        time.sleep(0.3)  # enough for a start that does not wait
        assert read_all(end, rest).count(b"END") == 2
        started.result()


def test_half_closing_ends_the_input_and_not_the_output(engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    command = ["sh", "-c", "cat; sleep 0.5; echo after"]
    body = {"Image": busybox, "Cmd": command, "OpenStdin": True, "StdinOnce": True}
    made = engine.api("POST", f"/containers/create?name={one}", body)
    assert made.status == 201
    end, _, rest = attach(engine, one, "stream=1&stdout=1&stdin=1")
    engine.docker("start", one)
    end.sendall(b"before\n")
    end.shutdown(socket.SHUT_WR)
    assert read_all(end, rest) == framed(b"before\n") + framed(b"after\n")


def test_a_client_that_dies_costs_the_others_nothing(engine: Engine, busybox: str, name: Names) -> None:
    one = make(engine, name(), busybox, "sh", "-c", f"{LINES} | head -c 20000000; echo end")
    dead, _, _ = attach(engine, one, "stream=1&stdout=1")
    alive, _, rest = attach(engine, one, "stream=1&stdout=1", upgrade=False)
    engine.docker("start", one)
    time.sleep(0.2)
    dead.close()
    data = read_all(alive, rest)
    assert data.endswith(b"end\n") and len(data) > 20_000_000
    assert engine.api.inspect(one)["State"]["ExitCode"] == 0


def test_a_reader_of_logs_that_stops_reading_stops_no_container(
    engine: Engine, busybox: str, name: Names
) -> None:
    one = name()
    engine.docker(
        "run", "-d", "--name", one, busybox, "sh", "-c", f"{LINES} | head -c 40000000; echo end >/end"
    )
    end = socket.socket(socket.AF_UNIX)
    end.connect(engine.socket)
    end.sendall(f"GET /containers/{one}/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: docker\r\n\r\n".encode())
    eventually(lambda: engine.api.inspect(one)["State"]["Status"] == "exited", timeout=60)
    end.close()
    assert engine.api.inspect(one)["State"]["ExitCode"] == 0


def test_clients_that_stop_reading_stop_no_container_and_get_every_byte(
    engine: Engine, busybox: str, name: Names
) -> None:
    """One from before the start and one from later: what they miss is kept on the disk, not in memory."""
    one = make(
        engine, name(), busybox, "sh", "-c", f"while ! test -e /go; do :; done; {LINES} | head -c 30000000"
    )
    early, _, begun = attach(engine, one, "stream=1&stdout=1", upgrade=False)
    engine.docker("start", one)
    late, _, later = attach(engine, one, "stream=1&stdout=1", upgrade=False)
    monitor = monitor_of(engine.api.inspect(one)["State"]["Pid"])
    engine.docker("exec", one, "touch", "/go")
    eventually(lambda: engine.api.inspect(one)["State"]["Status"] == "exited", timeout=60)
    assert engine.api.inspect(one)["State"]["ExitCode"] == 0
    assert resident_kib(monitor) < 40_000
    for end, data in ((early, begun), (late, later)):
        assert read_all(end, data).count(b"y\n") == 30_000


def test_the_one_who_started_it_is_a_pipe_once_too_much_is_kept(
    engine: Engine, busybox: str, name: Names
) -> None:
    one = make(
        engine, name(), busybox, "sh", "-c", f"while ! test -e /go; do :; done; {LINES} | head -c 80000000"
    )
    early, _, begun = attach(engine, one, "stream=1&stdout=1", upgrade=False)
    engine.docker("start", one)
    late, _, _ = attach(engine, one, "stream=1&stdout=1", upgrade=False)
    engine.docker("exec", one, "touch", "/go")
    late.settimeout(60)
    eventually(lambda: gone(late), timeout=60, what="the late one is let go")
    assert engine.api.inspect(one)["State"]["Status"] == "running"
    assert read_all(early, begun).count(b"y\n") == 80_000
    late.close()


def test_a_log_that_is_not_to_be_on_the_disk_keeps_nothing_for_clients(
    engine: Engine, busybox: str, name: Names
) -> None:
    script = f"while ! test -e /go; do :; done; {LINES} | head -c 5000000"
    early, late = name(), name()
    make(engine, early, "--log-driver", "none", busybox, "sh", "-c", script)
    waited_for, _, begun = attach(engine, early, "stream=1&stdout=1", upgrade=False)
    engine.docker("start", early)
    engine.docker("run", "-d", "--log-driver", "none", "--name", late, busybox, "sh", "-c", script)
    stuck, _, _ = attach(engine, late, "stream=1&stdout=1")
    for one in (early, late):
        engine.docker("exec", one, "touch", "/go")
    eventually(lambda: engine.api.inspect(late)["State"]["Status"] == "exited", timeout=40)
    stuck.close()
    assert engine.api.inspect(early)["State"]["Status"] == "running"
    assert read_all(waited_for, begun).count(b"y\n") == 5_000


def by_websocket(engine: Engine, container: str, query: str, version: str = "v1.44") -> websocket.WebSocket:
    """Attach as a browser would."""
    end = socket.socket(socket.AF_UNIX)
    end.connect(engine.socket)
    url = f"ws://docker/{version}/containers/{container}/attach/ws?{query}"
    try:
        return websocket.create_connection(url, timeout=20, socket=end)
    except BaseException:
        end.close()
        raise


def read_messages(client: websocket.WebSocket) -> tuple[bytes, set[int]]:
    """Everything up to the server's farewell, and the kinds of messages it came in."""
    data, kinds = b"", set()
    while True:
        kind, piece = client.recv_data()
        if kind == websocket.ABNF.OPCODE_CLOSE:
            client.shutdown()
            return data, kinds
        data += piece
        kinds.add(kind)


def test_attaching_by_websocket(engine: Engine, busybox: str, name: Names) -> None:
    one = make(engine, name(), "-i", busybox, "sh", "-c", "echo early; echo wrong >&2; cat; echo over")
    client = by_websocket(engine, one, "stream=1&stdout=1&stderr=1&stdin=1")
    engine.docker("start", one)
    got = b""
    while got.count(b"\n") < 2:
        got += client.recv()
    assert sorted(got.split()) == [b"early", b"wrong"]
    late = by_websocket(engine, one, "logs=1&stream=1&stdout=1", "v1.27")
    assert late.recv_data() == (websocket.ABNF.OPCODE_TEXT, b"early\n")
    late.close()
    late.shutdown()
    client.ping("are you there")
    typed = bytes(range(256)) * 2000
    client.send_binary(typed)
    got = b""
    while len(got) < len(typed):
        got += client.recv()
    assert got == typed
    client.close()
    client.shutdown()  # which ends the input, as `-i` says
    eventually(lambda: engine.docker("logs", "--tail", "1", one).raw.endswith(b"over\n"))


def test_a_websocket_gets_every_byte_and_the_end(engine: Engine, busybox: str, name: Names) -> None:
    one = make(engine, name(), busybox, "sh", "-c", f"{LINES} | head -c 3000000")
    client = by_websocket(engine, one, "stream=1&stdout=1")
    engine.docker("start", one)
    data, kinds = read_messages(client)
    assert (data.count(b"y\n"), len(data), kinds) == (3000, 3_000_000, {websocket.ABNF.OPCODE_BINARY})
    client = by_websocket(engine, one, "logs=1&stdout=1")
    assert read_messages(client)[0] == data


def test_a_websocket_is_refused_before_the_handshake(engine: Engine, busybox: str, name: Names) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        by_websocket(engine, "no-such-one", "stream=1&stdout=1")
    assert refused.value.status_code == 404
    one = make(engine, name(), busybox, "true")
    assert engine.api("GET", f"/containers/{one}/attach/ws?stream=1").status == 400
    client = by_websocket(engine, one, "stream=1&stdout=1")
    assert client.sock is not None
    client.sock.sendall(b"\x82\x01x")  # no mask
    frame = client.recv_frame()  # without an answer, which may come too late
    assert (frame.opcode, frame.data) == (websocket.ABNF.OPCODE_CLOSE, (1002).to_bytes(2, "big"))
    client.shutdown()
