"""The networks bridge, host and none, and the sandboxes of the containers on them.

What must outlive a crash is in the database before the kernel knows of it, and leaves it after the kernel has
forgotten it: the bridge's address, and for each endpoint its address, MAC address and veth name.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from sampan.database import Database
from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError, Unavailable
from sampan.linux import nftables, nftmaps, rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network import bridge, namespace
from sampan.network.files import host_nameservers
from sampan.network.model import BridgeOptions, Endpoint, Network, Sandbox
from sampan.network.pool import AddressPool, choose_subnet, parse_bip
from sampan.network.ports import ANY, Binding, PortTable, Published
from sampan.network.watch import BridgeWatch

log = logging.getLogger("sampan.network")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS networks (name TEXT PRIMARY KEY, id TEXT NOT NULL, created_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS bridges (name TEXT PRIMARY KEY, address TEXT NOT NULL, made INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS endpoints (
    id TEXT PRIMARY KEY, container_id TEXT NOT NULL, address TEXT NOT NULL, veth TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS endpoints_by_container ON endpoints (container_id);
CREATE TABLE IF NOT EXISTS published (
    container_id TEXT PRIMARY KEY, address TEXT NOT NULL, ports TEXT NOT NULL
);
"""
_NAMES = ("bridge", "host", "none")
_NO_DEVICE = frozenset({errno.ENODEV})
_KERNEL_GRACE_S = 0.5  # a dying namespace takes its veth along in a few milliseconds, by itself
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


class NetworkService:
    """The networks of one daemon. Thread-safe; calls block for the few milliseconds the kernel needs.

    Args:
        database: where addresses are remembered.
        netns_dir: directory of the namespace files, one a container; made when missing.
        options: the default bridge.

    Attributes:
        warnings: what this machine lacks, for `info`; set by `start`.
    """

    def __init__(self, database: Database, netns_dir: Path, options: BridgeOptions) -> None:
        self.options = options
        self.warnings: list[str] = []
        self._database = database
        self._netns_dir = netns_dir
        self._bridge_index = 0
        self._watch: BridgeWatch | None = None
        self._watch_lock = threading.Lock()
        self._address: ipaddress.IPv4Interface | None = None
        self._pool: AddressPool | None = None
        self._ports = PortTable()
        self._firewall = False
        self._refusal = "the bridge network is not started"
        self._condition = threading.Condition()
        self._leaving: dict[
            str, tuple[str, ipaddress.IPv4Address, float]
        ] = {}  # endpoint: veth, address, when
        self._reaper: threading.Thread | None = None
        self._stopping = False
        database.script(_SCHEMA)
        self._ids = self._load_ids()

    # --- start and stop ---

    def start(self, live: Iterable[str]) -> None:
        """Put the bridge network in place and remove what containers that are gone left behind.

        A machine that cannot have it gets a line in `warnings`, and modes none and host still work.

        Args:
            live: the ids of the containers that run; theirs is kept, and joined to the bridge again if the
                bridge was gone.

        Raises:
            InvalidParameter: when the options themselves are wrong.
        """
        keep = set(live)
        self._netns_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._stopping = False
        for file in self._netns_dir.iterdir():
            if file.name not in keep:
                namespace.remove(file)
        self.warnings = []
        if self.options.name == "none":
            self._refusal = "bridge networking is switched off (--bridge none)"
            return
        bridge.check_name(self.options.name)
        wanted = parse_bip(self.options.bip) if self.options.bip else None
        if missing := bridge.missing_support():
            self.warnings = missing
            self._refusal = missing[0]
            return
        try:
            self._start_bridge(wanted, keep)
        except OSError as error:
            self._refusal = f"the bridge network cannot be set up: {error.strerror}"
            self.warnings.append(self._refusal)
        except Unavailable as error:
            self._refusal = error.message
            self.warnings.append(self._refusal)

    def _start_bridge(self, wanted: ipaddress.IPv4Interface | None, keep: set[str]) -> None:
        rows = self._database.execute("SELECT id, container_id, address, veth FROM endpoints")
        with Netlink() as netlink:
            with bridge.choosing():
                address = self._settle_address(netlink, wanted, any(row[1] in keep for row in rows))
                self._bridge_index = bridge.raise_bridge(netlink, self.options, address)
            self._address, self._pool = address, AddressPool(address.network, address.ip)
            for endpoint_id, container_id, text, veth in rows:
                if container_id in keep:
                    with contextlib.suppress(Conflict):  # an address of an earlier subnet
                        self._pool.claim(ipaddress.IPv4Address(text))
                else:
                    netlink.transact([rtnetlink.delete_link(veth)], tolerate=_NO_DEVICE)
                    self._database.execute("DELETE FROM endpoints WHERE id = ?", (endpoint_id,))
            self._recall_ports(keep)
            self._rejoin(netlink)
        self.warnings += self._equip(address)
        self._refusal = ""

    def _equip(self, address: ipaddress.IPv4Interface) -> list[str]:
        """Forwarding and firewall for the bridge that is up, and a watch on all of it; returns warnings."""
        warnings = []
        forwarding = firewall = False
        if self.options.ip_forward:
            warning = bridge.enable_forwarding()
            forwarding = warning is None
            warnings += [warning] if warning else []
        if self.options.iptables:
            firewall, more = bridge.put_firewall(self.options, address.network, self._redirections())
            warnings += more
            warning = bridge.enable_loopback(self.options.name) if firewall else None
            warnings += [warning] if warning else []
        self._firewall = firewall
        self._drop_watch()
        self._watch = BridgeWatch(
            self.options.name, self._bridge_index, address.ip, forwarding=forwarding, firewall=firewall
        )
        return warnings

    def _put_back(self) -> None:
        """Put back what somebody has taken away since the last start; quick when nobody has.

        Raises:
            Unavailable: that cannot be done; the message says what is missing.
        """
        with self._watch_lock:
            watch, address = self._watch, self._address
            if watch is None or address is None:
                return
            try:
                amiss = watch.amiss()
                if not amiss:
                    return
                with Netlink() as netlink:
                    self._bridge_index = bridge.raise_bridge(netlink, self.options, address)
                    self._rejoin(netlink)
                for warning in self._equip(address):
                    log.warning("%s", warning)
            except (OSError, InvalidParameter) as error:
                raise Unavailable(
                    f"the bridge network cannot be put back: {error}: mend that, or restart sampand"
                ) from error
            log.warning("%s: put back", "; ".join(amiss))

    def _drop_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _settle_address(
        self, netlink: Netlink, wanted: ipaddress.IPv4Interface | None, has_live: bool
    ) -> ipaddress.IPv4Interface:
        """Which address the bridge has: the asked for, the present, the remembered or a newly chosen one."""
        name = self.options.name
        rows = self._database.execute("SELECT address, made FROM bridges WHERE name = ?", (name,))
        remembered = ipaddress.IPv4Interface(rows[0][0]) if rows else None
        made = bool(rows and rows[0][1])
        link, present = bridge.find(netlink, name)
        if link is not None and wanted is not None and wanted not in present and made:
            if has_live and remembered in present:
                self.warnings.append(
                    f"--bip {wanted} takes effect when no container runs at the daemon's start; "
                    f"{name} keeps {remembered}"
                )
                return remembered
            netlink.transact([rtnetlink.delete_link(name)], tolerate=_NO_DEVICE)
            link, present = None, []
        if wanted is not None:
            address = wanted
        elif link is not None and present:
            address = remembered if remembered in present else present[0]
        else:
            used = bridge.used_networks(netlink)
            if remembered is not None and (
                has_live or not any(remembered.network.overlaps(net) for net in used if net.prefixlen > 1)
            ):
                address = remembered
            else:
                used += [ipaddress.IPv4Network(server) for server in host_nameservers()]
                subnet = choose_subnet(used)
                address = ipaddress.IPv4Interface((int(subnet.network_address) + 1, subnet.prefixlen))
        self._database.execute(
            "INSERT OR REPLACE INTO bridges VALUES (?, ?, ?)", (name, str(address), int(link is None or made))
        )
        return address

    def _rejoin(self, netlink: Netlink) -> None:
        """Make the live containers' veths ports of the bridge (again)."""
        veths = dict(self._database.execute("SELECT veth, container_id FROM endpoints"))
        if not veths:
            return
        for link in rtnetlink.links(netlink):
            if link.name not in veths or link.master == self._bridge_index:
                continue
            netlink.transact(
                [rtnetlink.set_master(link.index, link.name, self._bridge_index)], tolerate=_NO_DEVICE
            )
            isolated, hairpin = not self.options.icc, bool(self._ports.of(veths[link.name]))
            if isolated or hairpin:
                port = rtnetlink.set_port(link.index, link.name, isolated=isolated, hairpin=hairpin)
                netlink.transact([port], tolerate=_NO_DEVICE)

    def stop(self) -> None:
        """Finish pending removals; the bridge stays for the containers that live on."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
            reaper = self._reaper
        if reaper is not None:
            reaper.join()

    def lower(self) -> None:
        """Take bridge and table down when no container needs them; the address is remembered.

        A bridge that the user made stays.
        """
        if self._address is None or self._database.execute("SELECT 1 FROM endpoints LIMIT 1"):
            return
        name = self.options.name
        rows = self._database.execute("SELECT made FROM bridges WHERE name = ?", (name,))
        if rows and rows[0][0]:
            with Netlink() as netlink:
                netlink.transact([rtnetlink.delete_link(name)], tolerate=_NO_DEVICE)
        if self.options.iptables:
            with contextlib.suppress(OSError):  # a kernel without nf_tables has no table of ours either
                nftables.delete_table(bridge.table_name(name))
        with self._watch_lock:
            self._drop_watch()
        self._pool, self._address, self._bridge_index = None, None, 0
        self._refusal = "the bridge network is not started"

    def remove_all(self) -> None:
        """Take everything down: sandboxes, the bridge if we made it, our table, and their records."""
        if self._netns_dir.is_dir():
            for file in self._netns_dir.iterdir():
                self.remove_sandbox(file.name)
        self.stop()
        with Netlink() as netlink:
            for (veth,) in self._database.execute("SELECT veth FROM endpoints"):
                netlink.transact([rtnetlink.delete_link(veth)], tolerate=_NO_DEVICE)
        self._database.execute("DELETE FROM endpoints")
        self.lower()
        self._database.execute("DELETE FROM bridges WHERE name = ?", (self.options.name,))

    # --- sandboxes ---

    def create_sandbox(
        self, container_id: str, mode: str, mac: str | None = None, bindings: Sequence[Binding] = ()
    ) -> Sandbox:
        """Make a container's network namespace.

        Args:
            mode: "bridge" or "none"; the host's needs no sandbox.
            mac: the MAC address to use; by default 02:42 and the IP address.
            bindings: the ports to publish; none are in mode none.

        Raises:
            InvalidParameter: for a bad MAC address or binding.
            PortTaken: when a host port is in use.
            NotFound: for another mode.
            Unavailable: when the machine has no bridge network, or no address is free.
            OSError: when the kernel refuses; nothing is left behind.
        """
        if mode not in ("bridge", "none"):
            raise NotFound(f"network {mode} not found")
        mac_address = check_mac(mac) if mac else ""
        path = self._netns_dir / container_id
        if path.exists():
            self.remove_sandbox(container_id)
        endpoint_id = secrets.token_hex(32)
        if mode == "none":
            namespace.create(path, None)
            return Sandbox(str(path), {"none": Endpoint(self._ids["none"][0], endpoint_id)})
        return self._create_on_bridge(container_id, path, endpoint_id, mac_address, bindings)

    def _create_on_bridge(
        self, container_id: str, path: Path, endpoint_id: str, mac_address: str, bindings: Sequence[Binding]
    ) -> Sandbox:
        pool, own = self._pool, self._address
        if pool is None or own is None or self._refusal:
            raise Unavailable(self._refusal)
        self._put_back()
        veth = "veth" + secrets.token_hex(4)[:7]
        with ExitStack() as undo:
            address = pool.allocate()
            undo.callback(pool.release, address)
            mac_address = mac_address or _mac_of(address)
            self._database.execute(
                "INSERT INTO endpoints VALUES (?, ?, ?, ?)", (endpoint_id, container_id, str(address), veth)
            )
            undo.callback(self._database.execute, "DELETE FROM endpoints WHERE id = ?", (endpoint_id,))
            undo.callback(_delete_link, veth)
            port = namespace.Port(
                veth=veth,
                bridge_index=self._bridge_index,
                mtu=self.options.mtu,
                mac_address=mac_address,
                address=ipaddress.IPv4Interface((address, own.network.prefixlen)),
                gateway=own.ip,
                isolated=not self.options.icc,
                hairpin=bool(bindings),
            )
            try:
                namespace.create(path, port)
            except OSError as error:
                if error.errno == errno.EOPNOTSUPP and (missing := bridge.missing_support()):
                    raise Unavailable(missing[0]) from error
                raise
            undo.callback(namespace.remove, path)
            published = self._publish(container_id, address, bindings) if bindings else ()
            undo.pop_all()
        return self._on_bridge(path, endpoint_id, mac_address, address, own, published)

    def _on_bridge(
        self,
        path: Path,
        endpoint_id: str,
        mac_address: str,
        address: ipaddress.IPv4Address,
        own: ipaddress.IPv4Interface,
        published: Sequence[Published],
    ) -> Sandbox:
        endpoint = Endpoint(
            network_id=self._ids["bridge"][0],
            endpoint_id=endpoint_id,
            mac_address=mac_address or _mac_of(address),
            ip_address=str(address),
            prefix_len=own.network.prefixlen,
            gateway=str(own.ip),
        )
        return Sandbox(str(path), {"bridge": endpoint}, tuple(published))

    def recall_sandbox(self, container_id: str, mac: str | None = None) -> Sandbox | None:
        """The sandbox on the bridge that an earlier daemon has made for a running container, if it has one.

        Args:
            mac: as for `create_sandbox`.
        """
        rows = self._database.execute(
            "SELECT id, address FROM endpoints WHERE container_id = ?", (container_id,)
        )
        if not rows or self._address is None:
            return None
        endpoint_id, address = rows[-1]
        return self._on_bridge(
            self._netns_dir / container_id, endpoint_id, check_mac(mac) if mac else "",
            ipaddress.IPv4Address(address), self._address, self._ports.of(container_id),
        )  # fmt: skip

    # --- published ports ---

    def _publish(
        self, container_id: str, address: ipaddress.IPv4Address, bindings: Sequence[Binding]
    ) -> tuple[Published, ...]:
        if not self._firewall:
            raise Unavailable(
                "ports cannot be published: that takes our nftables table, which is switched off "
                "(--iptables=false) or which this kernel does not take; see the warnings of `info`"
            )
        published = self._ports.claim(container_id, bindings)
        try:
            rows = json.dumps([[one.protocol, one.port, one.host_ip, one.host_port] for one in published])
            self._database.execute(
                "INSERT OR REPLACE INTO published VALUES (?, ?, ?)", (container_id, str(address), rows)
            )
            nftmaps.add(bridge.table_name(self.options.name), _redirect(address, published))
        except BaseException:
            self._ports.release(container_id)
            self._database.execute("DELETE FROM published WHERE container_id = ?", (container_id,))
            raise
        return tuple(published)

    def withdraw(self, container_id: str) -> None:
        """Publish nothing of a container any more, before its address can be another's."""
        rows = self._database.execute("SELECT address FROM published WHERE container_id = ?", (container_id,))
        published = self._ports.release(container_id)
        if not rows:
            return
        with contextlib.suppress(OSError):  # no table, no elements in it
            address = ipaddress.IPv4Address(rows[0][0])
            nftmaps.delete(bridge.table_name(self.options.name), _redirect(address, published))
        self._database.execute("DELETE FROM published WHERE container_id = ?", (container_id,))

    def _recall_ports(self, keep: set[str]) -> None:
        """Know again what an earlier daemon has published for containers that live."""
        self._ports = PortTable()
        for container_id, text in self._database.execute("SELECT container_id, ports FROM published"):
            if container_id in keep:
                self._ports.restore(container_id, [Published(*entry) for entry in json.loads(text)])
            else:
                self._database.execute("DELETE FROM published WHERE container_id = ?", (container_id,))

    def _redirections(self) -> list[nftmaps.Redirection]:
        addresses = dict(self._database.execute("SELECT container_id, address FROM published"))
        return [
            redirection
            for container_id, published in self._ports.all().items()
            if container_id in addresses
            for redirection in _redirect(ipaddress.IPv4Address(addresses[container_id]), published)
        ]

    def remove_sandbox(self, container_id: str) -> None:
        """Let a container's namespace go; idempotent and quick.

        Its veth goes with the namespace (the kernel waits about 20 ms for readers of it), or is deleted when
        a process keeps the namespace; the address is free again only then.
        """
        self.withdraw(container_id)
        namespace.remove(self._netns_dir / container_id)
        rows = self._database.execute(
            "SELECT id, address, veth FROM endpoints WHERE container_id = ?", (container_id,)
        )
        if not rows:
            return
        with self._condition:
            for endpoint_id, address, veth in rows:
                entry = (veth, ipaddress.IPv4Address(address), time.monotonic())
                self._leaving.setdefault(endpoint_id, entry)
            if self._reaper is None:
                self._reaper = threading.Thread(target=self._reap, name="network-reaper", daemon=True)
                self._reaper.start()

    def _reap(self) -> None:
        """Wait until veths are gone, delete those that stay, give addresses back; then end."""
        while True:
            with self._condition:
                if not self._leaving:
                    self._reaper = None
                    return
                self._condition.wait(0.002 if self._stopping else 0.05)
                leaving = dict(self._leaving)
            try:
                gone = self._gone(leaving)
                for endpoint_id in gone:
                    self._database.execute("DELETE FROM endpoints WHERE id = ?", (endpoint_id,))
            except (OSError, SampanError):
                gone = list(leaving) if self._stopping else []  # the records stay for the next start
            with self._condition:
                for endpoint_id in gone:
                    _, address, _ = self._leaving.pop(endpoint_id)
                    if self._pool is not None:
                        self._pool.release(address)

    def _gone(self, leaving: dict[str, tuple[str, ipaddress.IPv4Address, float]]) -> list[str]:
        gone = []
        with Netlink() as netlink:
            names = {link.name for link in rtnetlink.links(netlink)}
            for endpoint_id, (veth, _, since) in leaving.items():
                if veth in names:
                    if time.monotonic() - since < _KERNEL_GRACE_S:
                        continue
                    netlink.transact([rtnetlink.delete_link(veth)], tolerate=_NO_DEVICE)
                gone.append(endpoint_id)
        return gone

    def sandbox_path(self, container_id: str) -> str | None:
        """The file of a container's namespace, if it has one."""
        path = self._netns_dir / container_id
        return str(path) if path.exists() else None

    # --- networks ---

    @property
    def gateway(self) -> str:
        """The bridge's address, which `host-gateway` stands for; "" without a bridge network."""
        return str(self._address.ip) if self._address is not None else ""

    def networks(self) -> list[Network]:
        """All networks."""
        return [self._network(name) for name in _NAMES if name != "bridge" or self.options.name != "none"]

    def get(self, name_or_id: str) -> Network:
        """A network by its name, its id, or the only one whose id begins so.

        Raises:
            NotFound: when there is none.
            InvalidParameter: when several ids begin so.
        """
        networks = self.networks()
        for network in networks:
            if name_or_id in (network.name, network.id):
                return network
        found = [network for network in networks if name_or_id and network.id.startswith(name_or_id)]
        if len(found) > 1:
            raise InvalidParameter(
                f"network {name_or_id} is ambiguous ({len(found)} matches found based on ID prefix)"
            )
        if not found:
            raise NotFound(f"network {name_or_id} not found")
        return found[0]

    def _network(self, name: str) -> Network:
        network_id, created_ns = self._ids[name]
        if name != "bridge":
            return Network(network_id, name, "host" if name == "host" else "null", created_ns)
        options, prefix = self.options, "com.docker.network."
        return Network(
            id=network_id,
            name=name,
            driver="bridge",
            created_ns=created_ns,
            subnet=str(self._address.network) if self._address is not None else "",
            gateway=self.gateway,
            options={
                f"{prefix}bridge.default_bridge": "true",
                f"{prefix}bridge.enable_icc": str(options.icc).lower(),
                f"{prefix}bridge.enable_ip_masquerade": str(options.ip_masq).lower(),
                f"{prefix}bridge.host_binding_ipv4": "0.0.0.0",
                f"{prefix}bridge.name": options.name,
                f"{prefix}driver.mtu": str(options.mtu),
            },
        )

    def _load_ids(self) -> dict[str, tuple[str, int]]:
        with self._database.transaction():
            for name in _NAMES:
                self._database.execute(
                    "INSERT OR IGNORE INTO networks VALUES (?, ?, ?)",
                    (name, secrets.token_hex(32), time.time_ns()),
                )
            rows = self._database.execute("SELECT name, id, created_ns FROM networks")
        return {name: (network_id, created_ns) for name, network_id, created_ns in rows}


def check_mac(mac: str) -> str:
    """A MAC address in the kernel's spelling.

    Raises:
        InvalidParameter: when it is none, or not that of a single station.
    """
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or not int(re.sub("[:-]", "", mac), 16):
        raise InvalidParameter(f"invalid MAC address: {mac}")
    return mac.replace("-", ":").lower()


def _mac_of(address: ipaddress.IPv4Address) -> str:
    return "02:42:" + address.packed.hex(":")


def _redirect(address: ipaddress.IPv4Address, published: Iterable[Published]) -> list[nftmaps.Redirection]:
    return [
        nftmaps.Redirection(
            one.protocol, None if one.host_ip == ANY else ipaddress.IPv4Address(one.host_ip), one.host_port,
            address, one.port,
        )
        for one in published
    ]  # fmt: skip


def _delete_link(name: str) -> None:
    with Netlink() as netlink:
        netlink.transact([rtnetlink.delete_link(name)], tolerate=_NO_DEVICE)
