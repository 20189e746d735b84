"""The bridge networks that are in place: bridges, pools of addresses, the firewall, and their repair.

The default bridge finds its address at each start (`settling`); the others have theirs from when they were
made.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from sampan.errors import InvalidParameter, SampanError, Unavailable, Unsupported
from sampan.linux import nftmaps, rtnetlink
from sampan.linux.netlink import Netlink
from sampan.network import bridge, lans, linking, settings, subnets, veths
from sampan.network.files import host_nameservers
from sampan.network.firewall import Firewall
from sampan.network.ground import Ground, ground
from sampan.network.linking import Link
from sampan.network.model import BridgeOptions, Network, Pool
from sampan.network.pool import IPNetwork, parse_bip
from sampan.network.settling import settle
from sampan.network.store import EndpointRecord, NetworkStore
from sampan.network.watch import Watch

log = logging.getLogger("sampan.network")
_NO_DEVICE = frozenset({errno.ENODEV})


class Grounds:
    """All bridge networks of a daemon that are in place. Thread-safe.

    Args:
        options: the default bridge's.
        redirections: tells what is published.
        links: tells what is open between containers of the default bridge that it keeps apart.

    Attributes:
        warnings: what this machine lacks; set by `start`.
        default: the default bridge network, as `start` found it; without a subnet when it is not in place.
        reserved: subnets of networks that could not be put in place.
    """

    def __init__(
        self,
        store: NetworkStore,
        options: BridgeOptions,
        default: Network,
        firewall: Firewall,
        redirections: Callable[[], Sequence[nftmaps.Entry]],
        links: Callable[[], Sequence[Link]],
    ) -> None:
        self.options = options
        self.warnings: list[str] = []
        self._store = store
        self._firewall = firewall
        self._redirections = redirections
        self._links = links
        self._in_place: dict[str, Ground] = {}
        self._refusals: dict[str, str] = {}
        self.reserved: list[IPNetwork] = []
        self._refusal = "the bridge network is not started"
        self._watch: Watch | None = None
        self._lock = threading.Lock()  # around repairs
        chosen = settings.of_default(options)
        self.default = replace(default, options=settings.shown(chosen))

    # --- start and stop ---

    def start(self, networks: Sequence[tuple[Network, bool]], keep: set[str]) -> None:
        """Put networks in place and remove what containers that are gone left behind.

        What cannot be had gets a line in `warnings`, and `get` says why.

        Args:
            networks: the user's, each with whether its bridge is of our making.
            keep: ids of the containers that live; they are joined to their bridges again.

        Raises:
            InvalidParameter: when the options themselves are wrong.
        """
        self.warnings, self._in_place, self._refusals = [], {}, {}
        pools = [pool for network, _ in networks for version in (4, 6) for pool in network.pools(version)]
        self.reserved = [ipaddress.ip_network(pool.subnet) for pool in pools]
        wanted = parse_bip(self.options.bip) if self.options.bip else None
        if self.options.name != "none":
            settings.check_interface("bridge", self.options.name)
        subnets.check_pools(self.options.address_pools)
        pool6 = subnets.of_default(self.options, self.default.id)
        if missing := bridge.missing_support():
            self.warnings = missing
            self._refusal = missing[0]
            return
        self._refusal = "the network is not in place"
        records = self._store.endpoints()
        try:
            with Netlink() as netlink:
                networks = self._sweep(netlink, networks)
                was = veths.masters(netlink, [one for one in records if one.container_id in keep])
                self._start_default(netlink, wanted, pool6, keep, records)
                self._start_others(netlink, networks, was)
                veths.recall(netlink, self._store, records, keep, self._holder)
                veths.rejoin(netlink, self._store, self._in_place.get)
            self.warnings += self._equip()
        except OSError as error:
            self.warnings.append(f"bridge networks cannot be set up: {error.strerror}")

    def _sweep(
        self, netlink: Netlink, networks: Sequence[tuple[Network, bool]]
    ) -> list[tuple[Network, bool]]:
        """Finish removals that a crash cut short; the networks, with what they have inherited by that."""
        heirs = {}
        for network, _ in networks:
            with contextlib.suppress(InvalidParameter):  # of another release
                if (lan := lans.parse(network)) is not None:
                    heirs[lan.parent] = network.id
        inherited = set()
        for network, made in self._store.doomed():
            with contextlib.suppress(InvalidParameter, Unsupported):  # of another release: no name, no bridge
                lan = lans.parse(network) if made and not network.config_only else None
                if lan is not None and lan.parent in heirs:
                    inherited.add(heirs[lan.parent])
                    self._store.inherit(heirs[lan.parent])
                elif lan is not None:
                    lans.lower_parent(netlink, lan)
                elif made and not network.config_only:
                    bridge.delete_bridge(netlink, settings.parse(network).interface)
            self._store.forget(network.id)
        return [(network, made or network.id in inherited) for network, made in networks]

    def _start_default(
        self,
        netlink: Netlink,
        wanted: ipaddress.IPv4Interface | None,
        pool6: Pool | None,
        keep: set[str],
        records: Sequence[EndpointRecord],
    ) -> None:
        if pool6 is not None and not bridge.has_ipv6():
            self._refuse_default("the bridge network cannot have IPv6: this kernel has none (ipv6 is set)")
            return
        if self.options.name == "none":
            self._refuse_default("bridge networking is switched off (--bridge none)", warn=False)
            return
        has_live = any(one.container_id in keep for one in records if one.network_id in ("", self.default.id))
        try:
            with bridge.choosing():
                address, made, warning = settle(
                    netlink, self._store, self.options, wanted, lambda: self.used(netlink), has_live=has_live
                )
                self.warnings += [warning] if warning else []
                self.default = replace(
                    self.default, subnet=str(address.network), gateway=str(address.ip), ipv6=pool6
                )
                if pool6 is None and made:  # an earlier daemon's, whose firewall table is not there any more
                    bridge.disable_ipv6(self.options.name)
                found = ground(self.default, settings.of_default(self.options), made)
                found.index = bridge.raise_bridges(netlink, [found.wanted])[found.settings.interface]
        except OSError as error:
            self._refuse_default(f"the bridge network cannot be set up: {error.strerror}")
            return
        except Unavailable as error:
            self._refuse_default(error.message)
            return
        self._in_place[self.default.id] = found

    def _refuse_default(self, why: str, *, warn: bool = True) -> None:
        self.default = replace(self.default, subnet="", gateway="", ipv6=None)
        self._refusals[self.default.id] = why
        if warn:
            self.warnings.append(why)

    def used(self, netlink: Netlink) -> list[ipaddress.IPv4Network]:
        """What a new subnet must not overlap: the host's addresses, routes and resolvers, other networks."""
        own = [one for one in self._subnets() if isinstance(one, ipaddress.IPv4Network)]
        own += [ipaddress.IPv4Network(server) for server in host_nameservers()]
        return own + bridge.used_networks(netlink)

    def used6(self, netlink: Netlink) -> list[ipaddress.IPv6Network]:
        """As `used`, of IPv6."""
        own = [one for one in self._subnets() if isinstance(one, ipaddress.IPv6Network)]
        return own + rtnetlink.routes6(netlink)

    def _subnets(self) -> list[IPNetwork]:
        return [part.subnet for one in self.all() for part in one.parts] + self.reserved

    def _start_others(
        self, netlink: Netlink, networks: Sequence[tuple[Network, bool]], was: dict[str, int]
    ) -> None:
        found = []
        for network, made in networks:
            try:
                lan = lans.parse(network)
                one = ground(network, lan.settings if lan else settings.parse(network), made, lan)
            except (InvalidParameter, Unsupported) as error:  # made by a release that offers more
                self._refuse(network, error)
                continue
            one.index = was.get(network.id, 0)
            found.append(one)
        try:
            raised = bridge.raise_bridges(netlink, [one.wanted for one in found if one.lan is None])
        except (OSError, InvalidParameter):
            raised = {}
        for one in found:  # one that cannot be had is to keep no other back
            try:
                one.index = raised.get(one.settings.interface) or _raise(netlink, one)
            except (OSError, SampanError) as error:
                self._refuse(one.network, error)
            else:
                self._in_place[one.network.id] = one
                for part in one.parts:
                    self.reserved.remove(part.subnet)

    def _refuse(self, network: Network, error: Exception) -> None:
        self._refusals[network.id] = f"network {network.name} cannot be set up: {error}"
        self.warnings.append(self._refusals[network.id])

    def lower(self) -> None:
        """Take the default bridge and the table down when no container needs them.

        Addresses are remembered. A bridge that the user made stays, and so do those of the user's networks,
        whose subnets they keep from others.
        """
        if not self._in_place or self._store.endpoints():
            return
        default = self._in_place.get(self.default.id)
        if default is not None and default.made:
            with Netlink() as netlink:
                bridge.delete_bridge(netlink, default.settings.interface)
        self.forget()

    def forget(self) -> None:
        """Have nothing in place any more, nor a table."""
        if self.options.iptables:
            for one in self._bridged():
                bridge.disable_loopback(one.settings.interface)
            self._firewall.drop()
        with self._lock:
            self._drop_watch()
        self._in_place, self._refusal = {}, "the bridge network is not started"
        self.default = replace(self.default, subnet="", gateway="", ipv6=None)

    # --- one network ---

    def get(self, network_id: str) -> Ground:
        """A network's ground.

        Raises:
            Unavailable: it is not in place; the message says why.
        """
        found = self._in_place.get(network_id)
        if found is None:
            raise Unavailable(self._refusals.get(network_id, self._refusal))
        return found

    def find(self, network_id: str) -> Ground | None:
        """As `get`, but None when it is not in place."""
        return self._in_place.get(network_id)

    def _holder(self, network_id: str) -> Ground | None:
        """That of an endpoint's record, which has no network where an older daemon has written it."""
        return self._in_place.get(network_id or self.default.id)

    def all(self) -> list[Ground]:
        """All that are in place."""
        return list(self._in_place.values())

    def trusted(self, address: str) -> tuple[str, ...]:
        """By which interfaces of the host's published ports are reached at this address of a container."""
        for one in self.all():
            if one.settings.trusted:  # as hardly any has
                wanted = ipaddress.ip_address(address)
                if any(wanted in part.subnet for part in one.parts):
                    return one.settings.trusted
        return ()

    def _bridged(self) -> list[Ground]:
        return [one for one in self.all() if one.lan is None]

    def raise_new(self, new: Ground) -> None:
        """Put a new network in place.

        Raises:
            Unavailable: this machine cannot have bridges.
            OSError, InvalidParameter: the bridge cannot be made; nothing is left of it.
        """
        if self._watch is None:
            raise Unavailable(self._refusal)
        name = new.settings.interface
        with Netlink() as netlink:
            try:
                new.index = _raise(netlink, new)
            except BaseException:
                if new.made:
                    _lower(netlink, new)
                raise
        with self._lock:
            self._in_place[new.network.id] = new
            if new.lan is not None:
                return
            try:
                self._firewall.add(new.zone)
                if self._firewall.in_place:  # whose guard keeps containers from the host's 127.0.0.0/8
                    bridge.enable_loopback(name)
            except OSError:  # somebody has flushed it
                for warning in self._equip():
                    log.warning("%s", warning)
            if 6 in new.versions and self._firewall.in_place and not self._firewall.in_place6:
                raise Unavailable(
                    f"network {new.network.name} cannot have IPv6: no nftables table of family ip6 could be "
                    "made, so that nothing would keep it from other networks; see the daemon's log"
                )

    def drop(self, network_id: str) -> None:
        """Take a network down; one that is not in place is fine."""
        with self._lock:
            old = self._in_place.pop(network_id, None)
        self._refusals.pop(network_id, None)
        if old is None:
            return  # its subnet stays reserved until the next start
        if old.lan is None:
            with contextlib.suppress(OSError):
                self._firewall.remove(old.zone)
        elif heir := next((one for one in self.all() if one.lan and one.lan.parent == old.lan.parent), None):
            if old.made and not heir.made:  # who is left has it now
                heir.made = True
                self._store.inherit(heir.network.id)
            return
        if old.made:
            with Netlink() as netlink:
                _lower(netlink, old)

    # --- repair ---

    def put_back(self, asked: Sequence[Ground]) -> None:
        """Put back what somebody has taken away since the last start; quick when nobody has.

        Args:
            asked: the networks that are to be used now; when something is amiss, all are looked at.

        Raises:
            Unavailable: that cannot be done; the message says what is missing.
        """
        with self._lock:
            watch = self._watch
            if watch is None:
                return
            try:
                if not watch.amiss() and not any(self._problem(watch, one) for one in asked):
                    return
                amiss = watch.amiss()
                with Netlink() as netlink:
                    for one in self.all():
                        if problem := self._problem(watch, one):
                            amiss.append(problem)
                            self._raise_again(netlink, one, needed=one in asked)
                    veths.rejoin(netlink, self._store, self._in_place.get)
                for warning in self._equip():
                    log.warning("%s", warning)
            except (OSError, SampanError) as error:
                raise Unavailable(
                    f"the bridge network cannot be put back: {error}: mend that, or restart sampand"
                ) from error
            log.warning("%s: put back", "; ".join(amiss))

    def tend(self) -> None:
        """As `put_back`, for all bridge networks that are in place.

        A parent that has gone is the host's own affair, and told at the next start of a container there.

        Raises:
            Unavailable: as `put_back`.
        """
        self.put_back(self._bridged())

    def _raise_again(self, netlink: Netlink, one: Ground, *, needed: bool) -> None:
        try:
            one.index = _raise(netlink, one)
        except (OSError, SampanError) as error:
            if needed:
                raise
            log.warning("network %s cannot be put back: %s", one.network.name, error)

    def _problem(self, watch: Watch, one: Ground) -> str:
        if one.lan is not None:
            return watch.parent_problem(one.lan.parent, one.index)
        name = one.settings.interface
        problem = watch.bridge_problem(name, one.index, one.address.ip if one.address is not None else None)
        if not problem and one.address6 is not None:
            problem = watch.address_problem(name, one.index, one.address6.ip)
        return problem

    def _equip(self) -> list[str]:
        """Forwarding and firewall for all that is in place, and a watch on it; returns warnings."""
        warnings = []
        forwarding = False
        if self.options.ip_forward:
            warning = bridge.enable_forwarding()
            forwarding = warning is None
            warnings += [warning] if warning else []
        grounds = self._bridged()
        forwarding6 = False
        if self.options.ip_forward and any(6 in one.versions for one in grounds):
            warning = bridge.enable_forwarding6()
            forwarding6 = warning is None
            warnings += [warning] if warning else []
        if self.options.iptables:
            links = self._links()
            passages = linking.passages(links, self.options.name)
            zones, linked = [one.zone for one in grounds], None
            if links:
                with Netlink() as netlink:
                    members = self._store.members(self.default.id)
                    linked = linking.linked(netlink, links, self.options.name, members)
            warnings += self._firewall.put(zones, self._redirections, passages, linked)
            if self.default.id in self._in_place:
                bridge.answer_for_neighbours(self.options.name, bool(passages) and self._firewall.in_place)
            if self._firewall.in_place:
                found = [bridge.enable_loopback(one.settings.interface) for one in grounds]
                warnings += [warning for warning in found if warning]
        if not self._firewall.in_place:  # an earlier daemon may have had a table
            for one in grounds:
                if one.made:
                    bridge.disable_loopback(one.settings.interface)
        self._drop_watch()
        self._watch = Watch(
            self._firewall.name, self._firewall.families, forwarding=forwarding, forwarding6=forwarding6
        )
        return warnings

    def relink(self) -> None:
        """Have those links open that there are now.

        Raises:
            Unavailable: there are some, and the firewall table is not there that they take.
        """
        with self._lock:
            if self._watch is not None and self.options.iptables:
                for warning in self._equip():
                    log.warning("%s", warning)
            if self._links() and not self._firewall.in_place:
                raise Unavailable(
                    "links cannot be opened on a bridge that keeps its containers apart (--icc=false): that "
                    "takes our nftables table, which is switched off (--iptables=false) or which this kernel "
                    "does not take; see the warnings of `info`"
                )

    def _drop_watch(self) -> None:
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _raise(netlink: Netlink, one: Ground) -> int:
    """See that a network's bridge or parent is as it is to be; its index."""
    if one.lan is not None:
        return lans.raise_parent(netlink, one.lan)
    return bridge.raise_bridges(netlink, [one.wanted])[one.settings.interface]


def _lower(netlink: Netlink, one: Ground) -> None:
    if one.lan is not None:
        lans.lower_parent(netlink, one.lan)
    else:
        bridge.delete_bridge(netlink, one.settings.interface)
