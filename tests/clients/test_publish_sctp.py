"""SCTP ports, published: by sockets where the kernel has the protocol, by its packets where it has not.

A container needs no SCTP of the kernel's: programs bring their own (usrsctp) and speak it over raw sockets,
which is what is done here. Packets and chunks are those of RFC 9260.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from support.cli import Cli
from support.engine import Engine
from support.machine import eventually
from support.needs import program
from support.nets import another_machine

Names = Callable[[], str]
Far = tuple[str, str, Callable[..., str]]
pytestmark = [program("ip", "iproute2"), program("nsenter", "util-linux")]
PORT = 21990

# Sends INIT to an address and port, and prints from which port the INIT ACK comes and whether it is whole;
# with "serve", answers INITs to a port and prints who asks.
SPEAKER = """
import socket, struct, sys
TABLE = []
for n in range(256):
    for _ in range(8):
        n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
    TABLE.append(n)
def crc32c(data):
    c = 0xFFFFFFFF
    for b in data:
        c = c >> 8 ^ TABLE[(c ^ b) & 255]
    return c ^ 0xFFFFFFFF
def packet(source, port, tag, kind):
    chunk = struct.pack(">BBHIIHHI", kind, 0, 20, 0x01020304, 65536, 1, 1, 1)
    head = struct.pack(">HHI", source, port, tag)
    whole = head + bytes(4) + chunk
    return head + struct.pack("<I", crc32c(whole)) + chunk
def parsed(data):
    sctp = data[(data[0] & 15) * 4:]
    source, port, tag = struct.unpack(">HHI", sctp[:8])
    whole = crc32c(sctp[:8] + bytes(4) + sctp[12:]) == struct.unpack("<I", sctp[8:12])[0]
    return source, port, sctp[12], whole
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
if sys.argv[1] == "serve":
    print("ready", flush=True)
    while True:
        data, (peer, _) = s.recvfrom(2048)
        source, port, kind, whole = parsed(data)
        if kind == 1 and port == int(sys.argv[2]):
            print(peer, port, whole, flush=True)
            s.sendto(packet(port, source, 0x01020304, 2), (peer, 0))
else:
    s.settimeout(2)
    s.sendto(packet(7777, int(sys.argv[2]), 0, 1), (sys.argv[1], 0))
    while True:
        data, (peer, _) = s.recvfrom(2048)
        source, port, kind, whole = parsed(data)
        if kind == 2 and port == 7777:
            print(peer, source, whole)
            break
"""


@pytest.fixture(scope="module")
def lan() -> Iterator[Far]:
    with another_machine() as found:
        yield found


@pytest.fixture
def published(engine: Engine, busybox: str, name: Names) -> str:
    one = name()
    engine.docker("run", "-d", "--name", one, "-p", f"{PORT}:7/sctp", busybox, "sleep", "60")
    return one


def test_packets_get_there_and_back(published: str, cli: Cli, engine: Engine, lan: Far) -> None:
    here, there, run = lan
    assert cli("port", published).out == f"7/sctp -> 0.0.0.0:{PORT}\n"
    inside = ["nsenter", "--target", str(engine.api.pid(published)), "--net"]
    server = subprocess.Popen([*inside, sys.executable, "-c", SPEAKER, "serve", "7"], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        eventually(lambda: run("python3", "-c", SPEAKER, here, str(PORT)) == f"{here} {PORT} True\n")
        assert server.stdout.readline() == f"{there} 7 True\n".encode()
    finally:
        server.kill()
        server.communicate()
    assert run("python3", "-c", SPEAKER, here, str(PORT + 1)) == ""


def test_a_port_belongs_to_one(published: str, cli: Cli, busybox: str) -> None:
    taken = cli("run", "--rm", "-p", f"{PORT}:9/sctp", busybox, "true", code=125)
    assert f"Bind for 0.0.0.0:{PORT} failed: port is already allocated" in taken.err
    cli("run", "--rm", "-p", f"{PORT}:9/tcp", busybox, "true")


def test_sockets_of_the_kernels(published: str, engine: Engine, lan: Far) -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        pytest.skip("needs a kernel with SCTP (CONFIG_IP_SCTP)")
    here, _, run = lan
    serve = (
        "import socket; s = socket.socket(2, 1, 132); s.bind(('', 7)); s.listen()\n"
        "print('ready', flush=True)\n"
        "c, _ = s.accept(); c.sendall(b'ahoy'); c.recv(1)"
    )
    ask = "import socket; s = socket.socket(2, 1, 132)\n"
    ask += f"s.connect(({here!r}, {PORT})); print(s.recv(9).decode())"
    inside = ["nsenter", "--target", str(engine.api.pid(published)), "--net"]
    server = subprocess.Popen([*inside, sys.executable, "-c", serve], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        assert run("python3", "-c", ask) == "ahoy\n"
    finally:
        server.kill()
        server.communicate()
