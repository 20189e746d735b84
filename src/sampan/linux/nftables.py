"""nf_tables: tables, chains and rules, put in place as one transaction.

The numbers are those of Linux `include/uapi/linux/netfilter/nf_tables.h`.
Only what a small firewall of our own needs. A rule is a list of expressions, each a function here named as
`nft --debug=netlink` prints it; what `nft` does with a rule's text is written out by the caller.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator

from sampan.dataclasses import dataclass
from sampan.linux.netlink import (
    NETLINK_NETFILTER,
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    Message,
    Netlink,
    attribute,
    attributes,
    be32,
    nested,
    text,
)

SUBSYSTEM = 10 << 8
_BATCH_BEGIN = 0x10
_BATCH_END = 0x11
_NEWTABLE = SUBSYSTEM | 0
_GETTABLE = SUBSYSTEM | 1
_DELTABLE = SUBSYSTEM | 2
_NEWCHAIN = SUBSYSTEM | 3
_GETCHAIN = SUBSYSTEM | 4
_NEWRULE = SUBSYSTEM | 6
_GETRULE = SUBSYSTEM | 7
_GETGEN = SUBSYSTEM | 16

_NFTA_LIST_ELEM = 1
_REGISTER = 1
_REGISTER_VERDICT = 0
_NF_ACCEPT = 1
_NF_DROP = 0

HOOK_PREROUTING = 0
HOOK_INPUT = 1
HOOK_FORWARD = 2
HOOK_OUTPUT = 3
HOOK_POSTROUTING = 4
PRIORITY_RAW = -300
PRIORITY_MANGLE = -150
PRIORITY_DSTNAT = -100
PRIORITY_FILTER = 0
PRIORITY_SRCNAT = 100
PRIORITY_LAST = 300

_ETHER_TYPE_OFFSET = 12
_META_IIFNAME = 6
_META_OIFNAME = 7
_CT_STATE = 0
_CT_STATUS = 2
CT_ESTABLISHED = 2
CT_RELATED = 4
_META_L4PROTO = 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_IP6_NEXT_HEADER_OFFSET = 6
_SPORT_OFFSET, _DPORT_OFFSET = 0, 2
_CHECKSUM_OFFSETS = {6: 16, 17: 6}  # TCP, UDP
_CHECKSUM_INTERNET = 1
_SOURCE_OFFSETS: dict[int, int] = {4: 12, 6: 8}  # by IP version, in its header
_DESTINATION_OFFSETS: dict[int, int] = {4: 16, 6: 24}
_REJECT_ICMP_UNREACH, _REJECT_TCP_RESET = 0, 1
_ICMP_PKT_FILTERED, _ICMPV6_ADM_PROHIBITED = 13, 1
_IPS_DST_NAT = 1 << 5  # nf_conntrack_common.h
_FIB_DADDR, _FIB_ADDRTYPE, _RTN_UNICAST, _RTN_LOCAL, _RTN_MULTICAST = 2, 3, 1, 2, 5

Expression = bytes
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Fingerprint = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: expressions evaluated left to right until one does not match."""

    expressions: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Chain:
    """A base chain with its rules; its policy is to accept.

    Attributes:
        kind: "filter" or "nat".
        hook: `HOOK_…`.
        priority: `PRIORITY_…`.
    """

    name: str
    kind: str
    hook: int
    priority: int
    rules: tuple[Rule, ...]


def head(family: int, resource: int = 0) -> bytes:
    """What each message begins with (struct nfgenmsg)."""
    return struct.pack(">BBH", family, 0, resource)


def expression(name: str, *members: bytes) -> Expression:
    """One expression of a rule, by its name in the kernel."""
    return nested(_NFTA_LIST_ELEM, text(1, name), nested(2, *members))


def _value(kind: int, data: bytes) -> bytes:
    return nested(kind, attribute(1, data))


def _compare(data: bytes, equal: bool) -> Expression:
    return expression("cmp", be32(1, _REGISTER), be32(2, 0 if equal else 1), _value(3, data))


def _meta(key: int) -> Expression:
    return expression("meta", be32(2, key), be32(1, _REGISTER))


def _mask(mask: bytes) -> Expression:
    return expression(
        "bitwise",
        be32(1, _REGISTER),
        be32(2, _REGISTER),
        be32(3, len(mask)),
        _value(4, mask),
        _value(5, b"\0" * len(mask)),
    )


def _interface(key: int, name: str, equal: bool) -> tuple[Expression, ...]:
    return (_meta(key), _compare(name.encode().ljust(16, b"\0"), equal))


def iifname(name: str, *, equal: bool = True) -> tuple[Expression, ...]:
    """`iifname "name"`, or `iifname != "name"`."""
    return _interface(_META_IIFNAME, name, equal)


def oifname(name: str, *, equal: bool = True) -> tuple[Expression, ...]:
    """`oifname "name"`, or `oifname != "name"`."""
    return _interface(_META_OIFNAME, name, equal)


def ip_saddr(network: IPNetwork) -> tuple[Expression, ...]:
    """`ip saddr network`, for a table of family ip; `ip6 saddr network` of family ip6."""
    return _address(network, _SOURCE_OFFSETS[network.version])


def ip_daddr(network: IPNetwork) -> tuple[Expression, ...]:
    """`ip daddr network`, for a table of family ip; `ip6 daddr network` of family ip6."""
    return _address(network, _DESTINATION_OFFSETS[network.version])


def _address(network: IPNetwork, offset: int) -> tuple[Expression, ...]:
    length = network.max_prefixlen // 8
    load = expression("payload", be32(1, _REGISTER), be32(2, 1), be32(3, offset), be32(4, length))
    return (load, _mask(network.netmask.packed), _compare(network.network_address.packed, True))


def fib_daddr_local() -> tuple[Expression, ...]:
    """`fib daddr type local`: the destination is an address of this machine's."""
    return _fib_daddr(_RTN_LOCAL)


def fib_daddr_unicast() -> tuple[Expression, ...]:
    """`fib daddr type unicast`: the destination is another machine, neither this one nor many at once."""
    return _fib_daddr(_RTN_UNICAST)


def fib_daddr_multicast() -> tuple[Expression, ...]:
    """`fib daddr type multicast`."""
    return _fib_daddr(_RTN_MULTICAST)


def _fib_daddr(kind: int) -> tuple[Expression, ...]:
    load = expression("fib", be32(1, _REGISTER), be32(2, _FIB_ADDRTYPE), be32(3, _FIB_DADDR))
    return (load, _compare(struct.pack("=I", kind), True))


def ct_status_dnat() -> tuple[Expression, ...]:
    """`ct status dnat`: the connection's destination was rewritten."""
    return _ct_bits(_CT_STATUS, _IPS_DST_NAT)


def ct_state(states: int) -> tuple[Expression, ...]:
    """`ct state …`; states are `CT_…` joined by |."""
    return _ct_bits(_CT_STATE, states)


def _ct_bits(key: int, bits: int) -> tuple[Expression, ...]:
    mask = struct.pack("=I", bits)  # the kernel keeps it in the machine's byte order
    load = expression("ct", be32(2, key), be32(1, _REGISTER))
    return (load, _mask(mask), _compare(b"\0" * 4, False))


def ether_type(number: int) -> tuple[Expression, ...]:
    """`ether type …`: what kind of packet a frame carries.

    As it stands in the frame: `meta protocol` would be that of what lies behind a VLAN tag.
    """
    load = expression("payload", be32(1, _REGISTER), be32(2, 0), be32(3, _ETHER_TYPE_OFFSET), be32(4, 2))
    return (load, _compare(struct.pack(">H", number), True))


def l4proto(number: int) -> tuple[Expression, ...]:
    """`meta l4proto …`."""
    return (_meta(_META_L4PROTO), _compare(bytes([number]), True))


def icmpv6_type(number: int) -> tuple[Expression, ...]:
    """`icmpv6 type …`."""
    at = be32(2, _TRANSPORT_HEADER), be32(3, 0), be32(4, 1)
    kind = (expression("payload", be32(1, _REGISTER), *at), _compare(bytes([number]), True))
    return (*l4proto(socket.IPPROTO_ICMPV6), *kind)


def ip6_nexthdr(number: int) -> tuple[Expression, ...]:
    """`ip6 nexthdr …`: what comes right behind the fixed header."""
    at = be32(2, _NETWORK_HEADER), be32(3, _IP6_NEXT_HEADER_OFFSET), be32(4, 1)
    return (expression("payload", be32(1, _REGISTER), *at), _compare(bytes([number]), True))


def log_to(group: int, snap_bytes: int) -> tuple[Expression, ...]:
    """`log group … snaplen …`: a copy of the packet's beginning for who listens (nfnetlink_log)."""
    return (expression("log", attribute(1, struct.pack(">H", group)), be32(3, snap_bytes)),)


def reject_tcp_reset() -> tuple[Expression, ...]:
    """`reject with tcp reset`; in a chain at the prerouting hook it takes Linux 5.9."""
    return (expression("reject", be32(1, _REJECT_TCP_RESET), attribute(2, b"\0")),)


def reject_prohibited(family: int = socket.AF_INET) -> tuple[Expression, ...]:
    """`reject with icmp type admin-prohibited`, or `icmpv6`, as `reject_tcp_reset`."""
    code = attribute(2, bytes([_ICMP_PKT_FILTERED if family == socket.AF_INET else _ICMPV6_ADM_PROHIBITED]))
    return (expression("reject", be32(1, _REJECT_ICMP_UNREACH), code),)


def rewrite_port(protocol: int, port: int, new_port: int, *, source: bool) -> tuple[Expression, ...]:
    """`meta l4proto … th dport port th dport set new_port`, or of `sport`: no connection is tracked for it.

    Args:
        protocol: 6 or 17.
    """
    offset = _SPORT_OFFSET if source else _DPORT_OFFSET
    at = (be32(2, _TRANSPORT_HEADER), be32(3, offset), be32(4, 2))
    return (
        _meta(_META_L4PROTO),
        _compare(bytes([protocol]), True),
        expression("payload", be32(1, _REGISTER), *at),
        _compare(struct.pack(">H", port), True),
        expression("immediate", be32(1, _REGISTER), _value(2, struct.pack(">H", new_port))),
        expression(
            "payload", *at, be32(5, _REGISTER), be32(6, _CHECKSUM_INTERNET),
            be32(7, _CHECKSUM_OFFSETS[protocol]),
        ),
    )  # fmt: skip


def _verdict(code: int) -> tuple[Expression, ...]:
    data = nested(2, nested(2, be32(1, code)))
    return (expression("immediate", be32(1, _REGISTER_VERDICT), data),)


def accept() -> tuple[Expression, ...]:
    """`accept`: done with this chain; another table's chain may still drop."""
    return _verdict(_NF_ACCEPT)


def drop() -> tuple[Expression, ...]:
    """`drop`."""
    return _verdict(_NF_DROP)


def masquerade() -> tuple[Expression, ...]:
    """`masquerade`: the source address becomes that of the interface the packet leaves by."""
    return (expression("masq"),)


def table_messages(
    name: str, chains: tuple[Chain, ...], contents: tuple[Message, ...] = (), family: int = socket.AF_INET
) -> list[Message]:
    """A table, replaced whole: made if missing, deleted, made anew with these chains.

    Args:
        contents: requests for what else is in it, which the rules may refer to.
        family: `AF_INET` for ip, `AF_INET6` for ip6, `AF_BRIDGE` for bridge.
    """
    ours = head(family)
    made = Message(
        _NEWTABLE,
        NLM_F_ACK | NLM_F_CREATE,
        ours + text(1, name) + be32(2, 0),
        f"create nftables table {name}",
    )
    messages = [made, delete_message(name, family), made, *contents]
    for chain in chains:
        hook = nested(4, be32(1, chain.hook), be32(2, chain.priority))
        body = ours + text(1, name) + text(3, chain.name) + hook + be32(5, _NF_ACCEPT) + text(7, chain.kind)
        messages.append(
            Message(_NEWCHAIN, NLM_F_ACK | NLM_F_CREATE, body, f"create nftables chain {name} {chain.name}")
        )
        for rule in chain.rules:
            body = ours + text(1, name) + text(2, chain.name) + nested(4, *rule.expressions)
            flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND
            messages.append(
                Message(_NEWRULE, flags, body, f"add a rule to nftables chain {name} {chain.name}")
            )
    return messages


def delete_message(name: str, family: int = socket.AF_INET) -> Message:
    """Delete a table."""
    return Message(_DELTABLE, NLM_F_ACK, head(family) + text(1, name), f"delete nftables table {name}")


def batch(messages: list[Message]) -> list[Message]:
    """Wrap messages into one transaction: all of it happens, or nothing."""
    mark = head(socket.AF_UNSPEC, SUBSYSTEM >> 8)
    begin = Message(_BATCH_BEGIN, 0, mark, "begin an nftables transaction")
    return [begin, *messages, Message(_BATCH_END, 0, mark, "commit an nftables transaction")]


def replace_table(
    name: str, chains: tuple[Chain, ...], contents: tuple[Message, ...] = (), family: int = socket.AF_INET
) -> None:
    """Put our table in place, in one transaction; no packet sees it half made.

    Raises:
        OSError: what the kernel says; EPROTONOSUPPORT, EOPNOTSUPP or ENOENT when it lacks a part.
    """
    with Netlink(NETLINK_NETFILTER) as netlink:
        netlink.transact(batch(table_messages(name, chains, contents, family)))


def add_table(name: str, chains: tuple[Chain, ...]) -> None:
    """Make a table of family ip: quicker than to replace one, as the kernel has not to wait for its readers.

    Raises:
        OSError: EEXIST for one that is there; as `replace_table`.
    """
    made, _, _, *contents = table_messages(name, chains)
    anew = Message(made.kind, made.flags | NLM_F_EXCL, made.body, made.what)
    with Netlink(NETLINK_NETFILTER) as netlink:
        netlink.transact(batch([anew, *contents]))


def delete_table(name: str, family: int = socket.AF_INET) -> None:
    """Delete our table; one that is not there is fine."""
    made = table_messages(name, (), family=family)[0]  # so that deleting never fails for want of it
    with Netlink(NETLINK_NETFILTER) as netlink:
        netlink.transact(batch([made, delete_message(name, family)]))


@contextlib.contextmanager
def absence_allowed() -> Iterator[None]:
    """Within it, what is to be changed may have gone with a table that somebody has removed."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


def table_exists(name: str) -> bool:
    """Whether a table of family ip has this name."""
    request = Message(_GETTABLE, NLM_F_DUMP, head(socket.AF_INET), "list nftables tables")
    with Netlink(NETLINK_NETFILTER) as netlink:
        return any(
            dict(attributes(body[4:])).get(1, b"").rstrip(b"\0") == name.encode()
            for _, body in netlink.dump(request)
        )


def generation(netlink: Netlink) -> int:
    """The number that the kernel counts up with every change of any rule in this network namespace."""
    request = Message(_GETGEN, NLM_F_ACK, head(socket.AF_UNSPEC), "ask for the nftables generation")
    for _, body in netlink.dump(request):
        return int.from_bytes(dict(attributes(body[4:])).get(1, b""), "big")
    return 0


def fingerprint(netlink: Netlink, name: str, family: int = socket.AF_INET) -> Fingerprint:
    """What a table consists of: its chains and rules, by name and handle.

    A handle is never given twice, so one that was made anew differs, were it of the same content.
    """
    table, found = name.encode() + b"\0", []
    for kind, handle, chain in ((_GETCHAIN, 2, 3), (_GETRULE, 3, 2)):
        # The kernel gives the rules of this table alone; chains it gives of all.
        request = Message(kind, NLM_F_DUMP, head(family) + text(1, name), "list nftables chains and rules")
        for _, body in netlink.dump(request):
            members = dict(attributes(body[4:]))
            if body[0] == family and members.get(1) == table:
                found.append((members.get(chain, b""), members.get(handle, b"")))
    return tuple(found)
