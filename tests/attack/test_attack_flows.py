"""A UDP flow that never pauses, against containers that come after the one it was for.

A client on another machine (a namespace) sends to a published port, always from the same port of its own: for
the kernel that is one flow, which goes where its first packet went.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sampan.linux import conntrack
from sampan.linux.namespaces import join_path
from sampan.linux.threads import in_own_thread
from sampan.network import Binding, NetworkService, NetworkSpec, Request
from support.machine import eventually
from support.needs import program

pytestmark = [pytest.mark.root, program("ip", "iproute2"), program("unshare", "util-linux")]

HERE, PORT = "198.51.100.1", 5514
Make = Callable[..., NetworkService]


@pytest.fixture
def client(make: Make) -> Iterator[socket.socket]:
    """A UDP socket on another machine, connected to our port."""
    far = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    try:
        eventually(lambda: os.readlink(f"/proc/{far.pid}/ns/net") != os.readlink("/proc/thread-self/ns/net"))
        inside = ["nsenter", "--target", str(far.pid), "--net"]
        for words in (
            ["ip", "link", "set", "lo", "up"],
            ["ip", "link", "add", "lan0", "type", "veth", "peer", "name", "far0", "netns", str(far.pid)],
            ["ip", "addr", "add", f"{HERE}/24", "dev", "lan0"],
            ["ip", "link", "set", "lan0", "up"],
            [*inside, "ip", "addr", "add", "198.51.100.9/24", "dev", "far0"],
            [*inside, "ip", "link", "set", "far0", "up"],
        ):
            subprocess.run(words, check=True)
        with socket_in(f"/proc/{far.pid}/ns/net") as end:
            end.settimeout(0.3)
            end.connect((HERE, PORT))
            yield end
    finally:
        far.kill()
        far.wait()


def socket_in(namespace: str) -> socket.socket:
    def make_one() -> socket.socket:
        join_path("network", namespace)
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    return in_own_thread(make_one)


def listener(namespace: str, port: int = 53) -> socket.socket:
    end = socket_in(namespace)
    end.bind(("", port))
    end.settimeout(0.3)
    return end


def arrives(client: socket.socket, server: socket.socket) -> bool:
    """Whether what is sent reaches a server; refusals on the way are none of the question."""
    with suppress(OSError):
        client.send(b"flow")
    try:
        return server.recv(100) == b"flow"
    except TimeoutError:
        return False


def pours(client: socket.socket) -> None:
    for _ in range(20):
        with suppress(OSError):
            client.send(b"flow")


def stale(address: str) -> bool:
    """Whether the kernel still tracks anything of an address."""
    packed = socket.inet_aton(address)
    return bool(
        conntrack.flows([packed], lambda flow: address in (str(flow.answered_from), str(flow.source)))
    )


def _ends(make: Make, service: NetworkService, network: str) -> NetworkService:
    service.remove_sandbox("aa")
    return service


def _leaves(make: Make, service: NetworkService, network: str) -> NetworkService:
    service.disconnect("aa", network)
    return service


def _is_gone_after_a_crash(make: Make, service: NetworkService, network: str) -> NetworkService:
    return make()  # the container has ended while no daemon was there


@pytest.mark.parametrize("goes", [_ends, _leaves, _is_gone_after_a_crash])
def test_who_gets_the_address_of_a_container(
    make: Make, client: socket.socket, goes: Callable[[Make, NetworkService, str], NetworkService]
) -> None:
    service = make()
    shore = service.create(NetworkSpec("shore", subnet="10.77.0.0/24"))
    asked = Request(shore.id, address="10.77.0.9")
    old = service.create_sandbox("aa", [asked], [Binding("udp", 53, host_port=str(PORT))])
    with listener(old.path) as server:
        eventually(lambda: arrives(client, server))
    assert stale("10.77.0.9")
    service = goes(make, service, shore.id)
    pours(client)
    new = service.create_sandbox("bb", [asked])
    with listener(new.path) as server:
        for _ in range(5):
            assert not arrives(client, server), "the client was never told of this container"
    assert not stale("10.77.0.9")


def test_a_port_that_another_container_publishes_now(make: Make, client: socket.socket) -> None:
    service = make()
    bridge = service.get("bridge").id
    binding = Binding("udp", 53, host_port=str(PORT))
    old = service.create_sandbox("aa", [Request(bridge)], [binding])
    with listener(old.path) as server:
        eventually(lambda: arrives(client, server))
        service.withdraw("aa")  # its end is known, its namespace not yet gone
        new = service.create_sandbox("bb", [Request(bridge)], [binding])
        with listener(new.path) as other:
            eventually(lambda: arrives(client, other), what="the flow goes to who publishes the port")
            with suppress(TimeoutError):
                while server.recv(100):
                    pass  # what came before
            assert not arrives(client, server)


def test_a_flow_that_was_there_before_the_port_was_published(make: Make, client: socket.socket) -> None:
    service = make()
    bridge = service.get("bridge").id
    service.create_sandbox("aa", [Request(bridge)], [Binding("udp", 53, host_port=str(PORT + 1))])
    pours(client)
    assert conntrack.flows([PORT.to_bytes(2, "big")], lambda flow: flow.destination_port == PORT)
    new = service.create_sandbox("bb", [Request(bridge)], [Binding("udp", 53, host_port=str(PORT))])
    with listener(new.path) as server:
        eventually(lambda: arrives(client, server), what="a flow that began too early gets there in the end")


def test_flows_of_others_are_left_alone(make: Make, client: socket.socket) -> None:
    service = make()
    bridge = service.get("bridge").id
    binding = Binding("udp", 53, host_port=str(PORT))
    one = service.create_sandbox("aa", [Request(bridge)], [binding])
    with listener(one.path) as server:
        eventually(lambda: arrives(client, server))
        kept = conntrack.flows([PORT.to_bytes(2, "big")], lambda flow: flow.destination_port == PORT)
        other = service.create_sandbox("bb", [Request(bridge)], [Binding("udp", 53, host_port=str(PORT + 1))])
        service.remove_sandbox("bb")
        address = other.endpoints["bridge"].ip_address
        eventually(lambda: not any(path.name == "bb" for path in Path(other.path).parent.iterdir()))
        service.stop()  # its address is free now
        now = conntrack.flows([PORT.to_bytes(2, "big")], lambda flow: flow.destination_port == PORT)
        assert [flow.identity for flow in now] == [flow.identity for flow in kept]
        assert not stale(address)
