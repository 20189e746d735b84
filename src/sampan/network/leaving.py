"""The ends of endpoints: an address is free again once the kernel has let the veth go, and all flows to it.

A veth goes with its namespace (the kernel waits about 20 ms for readers of it), or is deleted when a process
keeps the namespace. Nobody waits for that but a thread, which ends when nothing is left to wait for.

Flows take the kernel longest, so where containers end one after the other, and nobody waits for an address,
that is done once for all that have ended in a second.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence

from sampan.errors import SampanError
from sampan.linux import rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network import flows
from sampan.network.store import EndpointRecord, NetworkStore

_NO_DEVICE = frozenset({errno.ENODEV})
_KERNEL_GRACE_S = 0.5  # a dying namespace takes its veth along in a few milliseconds, by itself
_LOOK_S, _LOOK_SOON_S = 0.05, 0.002
_EVERY_S = 1.0
_FEW = 16


class Leaving:
    """Endpoints that end. Thread-safe.

    Args:
        store: where they are forgotten when they are gone.
        release: gives the address of one back.
    """

    def __init__(self, store: NetworkStore, release: Callable[[EndpointRecord], None]) -> None:
        self._store = store
        self._release = release
        self._condition = threading.Condition()
        self._leaving: dict[str, tuple[EndpointRecord, float]] = {}
        self._expected: set[str] = set()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._awaited = 0
        self._due = 0.0

    def begin(self) -> None:
        """Be of use again after `stop`."""
        self._stopping = False

    def expect(self, container_id: str) -> None:
        """A container has ended, and its endpoints will be added in a moment."""
        self._expected.add(container_id)

    def left(self, record: EndpointRecord) -> bool:
        """Whether an endpoint has been let go of, and only its link is still to go."""
        return record.id in self._leaving

    def ending(self, network_id: str, address: str = "") -> bool:
        """Whether an endpoint of a network ends, that with an address or any."""
        return any(
            (record.id in self._leaving or record.container_id in self._expected)
            and (not address or address in record.addresses)
            for record in self._store.members(network_id)
        )

    def add(self, container_id: str, records: Sequence[EndpointRecord]) -> None:
        """A container's endpoints whose namespace has been let go of; adding one twice is fine."""
        if not records:
            self._expected.discard(container_id)
            return
        with self._condition:
            self._expected.discard(container_id)
            for record in records:
                self._leaving.setdefault(record.id, (record, time.monotonic()))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="network-reaper", daemon=True)
                self._thread.start()

    def wait(self, gone: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until something is so, which is asked again whenever endpoints have gone."""
        deadline = time.monotonic() + timeout_s
        with self._condition:
            self._awaited += 1
            self._condition.notify_all()
            try:
                while not gone():
                    if time.monotonic() > deadline:
                        return False
                    self._condition.wait(0.01)
                return True
            finally:
                self._awaited -= 1

    def stop(self) -> None:
        """Return when all have gone."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        """Wait until veths are gone, delete those that stay, give addresses back; then end."""
        while True:
            with self._condition:
                if not self._leaving:
                    self._thread = None
                    return
                self._condition.wait(_LOOK_SOON_S if self._stopping or self._awaited else _LOOK_S)
                if time.monotonic() < self._due and not (self._stopping or self._awaited):
                    continue
                leaving = list(self._leaving.values())
            try:
                gone = self._gone(leaving)
                if gone:
                    flows.forget(address for record in gone for address in record.addresses)
                    self._due = time.monotonic() + _EVERY_S
                self._let_go(gone)
            except (OSError, SampanError):
                if self._stopping:
                    self._let_go([record for record, _ in leaving], forget=False)

    def _let_go(self, gone: Sequence[EndpointRecord], *, forget: bool = True) -> None:
        """Give addresses back, in one step with their records, which those go by who wait for an address.

        Args:
            forget: the records; otherwise they stay for the next start.
        """
        if not gone:
            return
        with self._condition:
            if forget:
                self._store.delete_endpoints([record.id for record in gone])
            for record in gone:
                del self._leaving[record.id]
                self._release(record)
            self._condition.notify_all()

    def _gone(self, leaving: Sequence[tuple[EndpointRecord, float]]) -> list[EndpointRecord]:
        gone = []
        with Netlink() as netlink:
            # All links are listed only where that is less work than to ask for each.
            names = {link.name for link in rtnetlink.links(netlink)} if len(leaving) > _FEW else None
            for record, since in leaving:
                if not record.veth:  # its interface was deleted before, in its namespace
                    gone.append(record)
                    continue
                if record.veth in names if names is not None else rtnetlink.link_named(netlink, record.veth):
                    if time.monotonic() - since < _KERNEL_GRACE_S:
                        continue
                    netlink.transact([rtnetlink.delete_link(record.veth)], tolerate=_NO_DEVICE)
                gone.append(record)
        return gone


def delete_veth(name: str) -> None:
    """Delete a veth, given by the host's end; one that is not there is fine, and "" for none at all."""
    if not name:
        return
    with Netlink() as netlink:
        netlink.transact([rtnetlink.delete_link(name)], tolerate=_NO_DEVICE)
