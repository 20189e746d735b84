"""The networks of one daemon: bridge, host, none and the user's own, and the sandboxes of containers in them.

What must outlive a crash is in the database before the kernel knows of it, and leaves it after the kernel has
forgotten it (`store`). What runs is in `grounds` (bridges and firewall) and `sandboxes` (containers).
"""

from __future__ import annotations

import ipaddress
import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from sampan.database import Database
from sampan.errors import Conflict, Forbidden, InvalidParameter, NotFound, Unavailable
from sampan.linux.netlink import Netlink
from sampan.network import bridge, configurations, lans, namespace, others, settings, subnets
from sampan.network.egress import Guard, parse
from sampan.network.firewall import Firewall
from sampan.network.ground import ground
from sampan.network.grounds import Grounds
from sampan.network.lans import Lan
from sampan.network.leaving import delete_veth
from sampan.network.linking import Link, Linking
from sampan.network.model import (
    PREDEFINED,
    BridgeOptions,
    Endpoint,
    Network,
    NetworkSpec,
    Pool,
    Request,
    Sandbox,
)
from sampan.network.names import Names
from sampan.network.policies import Gated, Policies, not_at_a_bridge
from sampan.network.ports import Binding
from sampan.network.publishing import Publisher
from sampan.network.sandboxes import Sandboxes
from sampan.network.store import NetworkStore
from sampan.network.tending import Tending

LEAVE_S = 5.0  # how long a removal waits for the links of containers that have just ended


class NetworkService:
    """The networks of one daemon. Thread-safe; calls block for the few milliseconds the kernel needs.

    Args:
        database: where all is remembered.
        netns_dir: directory of the namespace files, one a container; made when missing.
        options: the default bridge.
        names: is told of members of user-defined networks, if there is somebody to tell.

    Attributes:
        guard: keeps containers to their egress policies.
        policies: those policies, as containers and networks have them.
    """

    def __init__(
        self, database: Database, netns_dir: Path, options: BridgeOptions, names: Names | None = None
    ) -> None:
        self.options = options
        self._netns_dir = netns_dir
        self._store = NetworkStore(database)
        self._predefined = {network.name: network for network in self._store.predefined()}
        self._users = {network.id: network for network, _ in self._store.networks()}
        default = self._predefined["bridge"]
        self._store.adopt_endpoints(default.id)
        label = options.name if options.name != "none" else f"none-{default.id[:8]}"
        firewall = Firewall(f"sampan-{label}")
        self._publisher = Publisher(
            self._store,
            firewall,
            netns_dir.parent / "proxies",
            lambda address: self._grounds.trusted(address),
        )
        self._linking = Linking(database, lambda: self._grounds.relink())
        self._grounds = Grounds(
            self._store, options, default, firewall, self._publisher.redirections, self._linking.all
        )
        self.guard = Guard(database, f"{firewall.name}-egress", enabled=options.iptables)
        self.policies = Policies(self.guard, self._store, self._grounds)
        self._sandboxes = Sandboxes(
            netns_dir, self._store, self._grounds, self._publisher, self.policies, names
        )
        self._tending = Tending(firewall.name, self._grounds.tend, self._obstacles)
        self._making = threading.Lock()  # networks are made one after the other

    # --- start and stop ---

    @property
    def warnings(self) -> list[str]:
        """What this machine lacks, and what is in the way of what containers send, for `info`."""
        return self._grounds.warnings + self._obstacles()

    def _obstacles(self) -> list[str]:
        bridges = [
            others.Forwarded(one.settings.interface, one.versions)
            for one in self._grounds.all()
            if one.lan is None and not one.network.internal
        ]
        try:
            return others.obstacles(bridges) if bridges else []
        except OSError:
            return []  # there is no nf_tables, which has its own warning

    def start(self, live: Iterable[str]) -> None:
        """Put the networks in place and remove what containers that are gone left behind.

        A machine that cannot have them gets a line in `warnings`, and modes none and host still work.

        Args:
            live: the ids of the containers that run; theirs is kept, and joined to bridges again that were
                gone.

        Raises:
            InvalidParameter: when the options themselves are wrong.
        """
        keep = set(live)
        self._netns_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._sandboxes.leaving.begin()
        for file in self._netns_dir.iterdir():
            if file.name not in keep:
                namespace.remove(file)
        self._publisher.recall(keep)
        self._linking.recall(keep)
        real = [(one, made) for one, made in self._store.networks() if not one.config_only]
        self._grounds.start(real, keep)
        self._grounds.warnings += self.guard.start()

    def tend(self) -> None:
        """Put back from now on what somebody takes away, without waiting for the next start."""
        self._tending.begin()

    def stop(self) -> None:
        """Finish pending removals; bridges and published ports stay for the containers that live on."""
        self._tending.stop()
        self._sandboxes.leaving.stop()
        self._publisher.close()
        self.guard.close()

    def lower(self) -> None:
        """Take the default bridge and the table down when no container needs them."""
        self.guard.lower()
        self._grounds.lower()

    def remove_all(self) -> None:
        """Take everything down: sandboxes, the bridges that we made, our table, and their records."""
        if self._netns_dir.is_dir():
            for file in self._netns_dir.iterdir():
                self.remove_sandbox(file.name)
        self.stop()
        records = self._store.endpoints()
        for record in records:
            delete_veth(record.veth)
        self._store.delete_endpoints([record.id for record in records])
        for network in sorted(
            self._users.values(), key=lambda one: one.config_only
        ):  # after those that use it
            self.remove(network, {})
        self.lower()
        self._grounds.forget()
        self._store.forget_bridge(self.options.name)

    # --- networks ---

    @property
    def gateway(self) -> str:
        """The default bridge's address, which `host-gateway` stands for; "" without one."""
        return self._grounds.default.gateway

    def networks(self) -> list[Network]:
        """All networks."""
        predefined = [
            self._shown(name) for name in PREDEFINED if name != "bridge" or self.options.name != "none"
        ]
        return predefined + list(self._users.values())

    def get(self, name_or_id: str) -> Network:
        """A network by its id, its name, or the only one whose id begins so.

        Raises:
            NotFound: when there is none.
            InvalidParameter: when several ids begin so.
        """
        if name_or_id in PREDEFINED and (name_or_id != "bridge" or self.options.name != "none"):
            return self._shown(name_or_id)
        if (exact := self._users.get(name_or_id)) is not None:
            return exact
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

    def _shown(self, name: str) -> Network:
        return self._grounds.default if name == "bridge" else self._predefined[name]

    def in_place(self, network_id: str) -> bool:
        """Whether there is a bridge network of this id that containers can be in now."""
        return self._grounds.find(network_id) is not None

    def create(self, spec: NetworkSpec) -> Network:
        """Make a network.

        Raises:
            InvalidParameter: what is asked for is wrong, or no subnet is left.
            Forbidden: it is called as a predefined one, or shares addresses with another.
            Conflict: another one has this name.
            NotFound: no such driver.
            Unsupported: an option of Docker's that is not offered.
            Unavailable: this machine cannot have bridges.
            OSError: the kernel's refusal; nothing is left behind.
        """
        _check_name(spec)
        configurations.check(spec)
        spec = lans.prepare(configurations.completed(spec, list(self._users.values())))
        subnets.check(spec)
        network = Network(
            id=secrets.token_hex(32),
            name=spec.name,
            driver="null" if spec.config_only else spec.driver,
            created_ns=time.time_ns(),
            ip_range=spec.ip_range,
            aux_addresses=spec.aux_addresses,
            static=bool(spec.subnet),
            internal=spec.internal,
            attachable=spec.attachable,
            options=spec.options,
            labels=spec.labels,
            ipam_options=spec.ipam_options,
            ipv6=spec.ipv6,
            more=spec.more,
            unused=spec.unused,
            enable_ipv4=spec.enable_ipv4,
            static6=spec.ipv6 is not None and bool(spec.ipv6.subnet),
            config_only=spec.config_only,
            config_from=spec.config_from,
        )
        if spec.config_only:
            return self._note(replace(network, subnet=spec.subnet, gateway=spec.gateway))
        if spec.ipv6 is not None and not bridge.has_ipv6():
            raise Unavailable("network create --ipv6: this kernel has no IPv6, or it is switched off")
        lan = lans.parse(network)
        chosen = settings.parse(network) if lan is None else lan.settings
        if spec.more and lan is None:
            raise Forbidden("bridge driver doesn't support multiple subnets")
        with self._making:
            if any(other.name == spec.name for other in self._users.values()):
                raise Conflict(f"network with name {spec.name} already exists")
            return self._make(spec, network, chosen, lan)

    def _note(self, network: Network) -> Network:
        """Record a network that nothing stands for in the kernel."""
        with self._making:
            self._store.insert(network, made=False)
            self._users[network.id] = network
        return network

    def _make(
        self, spec: NetworkSpec, network: Network, chosen: settings.BridgeSettings, lan: Lan | None
    ) -> Network:
        if lan is not None:
            grounds = self._grounds.all()
            lans.refuse_sharing(lan, network.id, {one.network.id: one.lan for one in grounds if one.lan})
        for other in self._grounds.all():
            if lan is None and other.settings.interface == chosen.interface:
                raise Forbidden(
                    f"cannot create network {network.id} ({chosen.interface}): conflicts with network "
                    f"{other.network.id} ({chosen.interface}): networks have same bridge name"
                )
        with Netlink() as netlink, bridge.choosing():
            if lan is not None:
                made = lans.missing(netlink, lan)
            else:
                made = bridge.find(netlink, chosen.interface)[0] is None
            if spec.ipv4 is not None:
                first = self._settle(spec.ipv4, 4, netlink, chosen)
                network = replace(network, subnet=first.subnet, gateway=first.gateway)
            if spec.ipv6 is not None:
                network = replace(network, ipv6=self._settle(spec.ipv6, 6, netlink, chosen))
            more = [self._settle(pool, pool.version, netlink, chosen) for pool in spec.more]
            network = replace(network, more=more)
            if subnets.overlapping([*network.pools(4), *network.pools(6)]):
                raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
            self._store.insert(network, made)
            try:
                self._grounds.raise_new(ground(network, chosen, made, lan))
            except BaseException:
                self._grounds.drop(network.id)
                self._store.forget(network.id)
                raise
        self._users[network.id] = network
        return network

    def set_policy(self, network: Network, text: str) -> None:
        """Give a network of the user's another egress policy, and so all in it that have none of their own.

        Args:
            text: the policy; "" for none.

        Raises:
            Forbidden: the network is predefined.
            InvalidParameter: that is no policy.
            Unavailable: it cannot be enforced.
        """
        if network.predefined:
            raise Forbidden(
                f"network {network.name} is predefined and has no egress policy; give one to containers, or "
                "to a network of your own"
            )
        if network.driver != "bridge":
            raise Forbidden(not_at_a_bridge(network))
        policy = parse(text) if text else None
        options = {name: value for name, value in network.options.items() if name != settings.EGRESS}
        if policy is not None:
            options[settings.EGRESS] = policy.text
        changed = replace(network, options=options)
        with self._making:
            if network.id not in self._users:
                raise NotFound(f"network {network.name} not found")
            self._store.replace(changed)
            self._users[network.id] = changed
            self.policies.set_network(changed, policy)

    def _settle(self, pool: Pool, version: int, netlink: Netlink, chosen: settings.BridgeSettings) -> Pool:
        """One of a new network's subnets: the one asked for, or the lowest free one; with its gateway.

        Raises:
            InvalidParameter, Forbidden: as `create`.
        """
        pools = subnets.split(self.options.address_pools)[version == 6]
        subnet: ipaddress.IPv4Network | ipaddress.IPv6Network
        if pool.subnet:
            subnet = ipaddress.ip_network(pool.subnet)
            subnets.refuse_overlap(subnet, self._subnets())
        elif version == 4:
            subnet = subnets.choose(pools or subnets.DEFAULT_POOLS, self._grounds.used(netlink))
        else:
            ours = [subnets.ula_pool(self._predefined["bridge"].id)]
            subnet = subnets.choose6(pools or ours, self._grounds.used6(netlink))
        if chosen.gateway_mode(version) == settings.ISOLATED and not pool.gateway:
            return replace(pool, subnet=str(subnet))  # nobody is there to have its address
        return replace(pool, subnet=str(subnet), gateway=str(subnets.gateway_of(pool, subnet)))

    def _subnets(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        networks = [*(one.network for one in self._grounds.all()), *self._users.values()]
        networks = [network for network in networks if not network.config_only]
        pools = [pool for network in networks for version in (4, 6) for pool in network.pools(version)]
        return [ipaddress.ip_network(pool.subnet) for pool in pools]

    def remove(self, network: Network, running: Mapping[str, str]) -> None:
        """Remove a network of the user's.

        Args:
            running: ids and names of the containers that are active; the endpoints of others are those of
                containers that end, and waited for.

        Raises:
            Forbidden: it is predefined, or containers are in it; in Docker's words.
            NotFound: somebody else has removed it meanwhile.
        """
        if network.predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")

        def ended() -> bool:
            members = self._store.members(network.id)
            return not members or any(one.container_id in running for one in members)

        self._sandboxes.leaving.wait(ended, LEAVE_S)
        with self._making:  # a new one may have the same subnet or bridge, as soon as those are free
            self._remove(network, running)

    def _remove(self, network: Network, running: Mapping[str, str]) -> None:
        if network.id not in self._users:
            raise NotFound(f"network {network.name} not found")  # somebody was faster
        configurations.refuse_used(network, list(self._users.values()))
        if not self._store.doom(network.id):
            members = ", ".join(
                f'name:"{running.get(one.container_id, one.container_id[:12])}" id:"{one.id[:12]}"'
                for one in self._store.members(network.id)
            )
            raise Forbidden(
                f"error while removing network: network {network.name} has active endpoints ({members})"
            )
        self._users.pop(network.id, None)
        self._grounds.drop(network.id)
        self._store.forget(network.id)

    # --- sandboxes ---

    def create_sandbox(
        self, container_id: str, requests: Sequence[Request], bindings: Sequence[Binding] = ()
    ) -> Sandbox:
        """Make a container's network namespace, with an interface in each network that is asked for.

        Args:
            requests: bridge networks; or the network none alone, or nothing, for the loopback alone. The
                host's network needs no sandbox.
            bindings: the ports to publish, in the network of the default route; in mode none there are none.

        Raises:
            InvalidParameter: for a bad MAC address or binding.
            PortTaken: when a host port is in use.
            Forbidden: an address that is asked for is in use.
            NotFound: for a network that there is not.
            Unavailable: when the machine has no bridge networks, or no address is free.
            OSError: when the kernel refuses; nothing is left behind.
        """
        none = self._predefined["none"]
        if [request.network_id for request in requests] == [none.id]:
            sandbox = self._sandboxes.create(container_id, ())
            return Sandbox(sandbox.path, {"none": Endpoint(none.id, secrets.token_hex(32))})
        return self._sandboxes.create(container_id, requests, bindings)

    def recall_sandbox(self, container_id: str, requests: Sequence[Request] = ()) -> Sandbox | None:
        """The sandbox that an earlier daemon has made for a running container, if it is in a bridge network.

        Args:
            requests: the names that it has there.
        """
        return self._sandboxes.recall(container_id, requests)

    def announce(self, container_id: str, requests: Sequence[Request]) -> None:
        """A running container has other names now."""
        self._sandboxes.announce(container_id, requests)

    def connect(self, container_id: str, request: Request, bindings: Sequence[Binding] = ()) -> Sandbox:
        """Give a running container an interface in one more network.

        Args:
            bindings: all that the container is to publish; a first network with a way out publishes them.

        Raises:
            SampanError, OSError: as `create_sandbox`; nothing is left behind.
        """
        return self._sandboxes.connect(container_id, request, bindings)

    def disconnect(self, container_id: str, network_id: str, bindings: Sequence[Binding] = ()) -> Sandbox:
        """Take a running container's interface in a network away.

        Raises:
            NotFound: it has none there.
        """
        if network_id == self._grounds.default.id:
            self._linking.forget(container_id)
        return self._sandboxes.disconnect(container_id, network_id, bindings)

    def withdraw(self, container_id: str) -> None:
        """Publish nothing of a container any more, before its address can be another's."""
        self._publisher.withdraw(container_id)

    def link(self, link: Link) -> None:
        """Open ports to a container, on a default bridge that keeps its containers apart.

        Raises:
            Unavailable: that takes our nftables table, which is not there.
        """
        self._linking.add(link)

    def unlink(self, parent_id: str, child_id: str) -> None:
        """Open them no more; where nothing is open that is fine."""
        self._linking.remove(parent_id, child_id)

    def proxies(self, container_id: str) -> bool:
        """Whether any of a container's ports is published by proxy."""
        return self._publisher.proxies(container_id)

    def lives(self, container_id: str, pidfd: int) -> None:
        """A container has a process: without a daemon, what is published by proxy ends with that.

        Args:
            pidfd: of its process; it is closed in the end.
        """
        self._publisher.lives(container_id, pidfd)

    def expect_removal(self, container_id: str) -> None:
        """A container has ended: who wants its address waits for `remove_sandbox`, which follows."""
        self._sandboxes.expect_removal(container_id)

    def remove_sandbox(self, container_id: str) -> None:
        """Let a container's namespace go; idempotent and quick."""
        self._linking.forget(container_id)
        self._sandboxes.remove(container_id)

    def set_container_policy(self, container_id: str, text: str) -> None:
        """Give a container another egress policy, where it runs.

        Args:
            text: the policy; "" for that of each of its networks.

        Raises:
            InvalidParameter: that is no policy.
            Unavailable: it cannot be enforced.
        """
        self.policies.set_container(self._sandboxes.present(container_id), parse(text) if text else None)

    def gated(self, container_id: str) -> Gated | None:
        """Which names a container may have resolved; None for one that has no policy anywhere."""
        if not self.guard.lanes(container_id):  # as most have none
            return None
        return self.policies.gated(container_id, self._sandboxes.present(container_id))

    def sandbox_path(self, container_id: str) -> str | None:
        """The file of a container's namespace, if it has one."""
        path = self._sandboxes.path(container_id)
        return str(path) if path.exists() else None


def _check_name(spec: NetworkSpec) -> None:
    if spec.name in (*PREDEFINED, "default") or spec.name.startswith("container:"):  # all mean network modes
        raise Forbidden(f"operation is not permitted on predefined {spec.name} network ")
    if not spec.name.strip():
        raise InvalidParameter("invalid network name: name is empty")
    if spec.driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{spec.driver}" network is allowed')
    if spec.driver not in ("bridge", *lans.DRIVERS):
        raise NotFound(f'plugin "{spec.driver}" not found')
