"""The three files that give a container its names: hosts, hostname and resolv.conf, with Docker's content.

hosts(5), hostname(5), resolv.conf(5). Each is put in place by a rename, mode 0644: whatever lies at the path,
a symbolic link for one, is replaced and never written through.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
from sampan.resolver.protocol import ADDRESS, Upstream

_LOOPBACK_RECORDS = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)
_FALLBACK_SERVERS = ("8.8.8.8", "8.8.4.4")
_HOSTS = Path("/etc/hosts")
_RESOLV_CONF = Path("/etc/resolv.conf")
_SYSTEMD_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")
_SYSTEMD_STUB = ["127.0.0.53"]
_HOST_GATEWAY = "host-gateway"
_READ_BYTES = 1 << 20


def write_hosts(
    path: Path,
    *,
    hostname: str,
    domainname: str = "",
    addresses: Sequence[str] = (),
    extra_hosts: Sequence[str] = (),
    linked: Sequence[tuple[str, str]] = (),
    host_mode: bool = False,
    host_gateway: str = "",
    host_path: Path = _HOSTS,
    ipv6: bool = True,
) -> None:
    """Write a container's /etc/hosts.

    Args:
        path: the file to write.
        addresses: the container's own, each given its names.
        extra_hosts: `name:address`; the address may be `host-gateway`.
        linked: addresses and names of other containers.
        host_mode: the container shares the host's network: the host's own file, unless there are extra hosts.
        host_gateway: the address that `host-gateway` stands for.
        host_path: the host's file.
        ipv6: whether the container has any; else no line has an address of that.

    Raises:
        InvalidParameter: for an extra host that is no name and address.
    """
    if host_mode and not extra_hosts:
        try:
            content = host_path.read_bytes()
        except FileNotFoundError:
            content = b""
        _write(path, content)
        return
    records = list(_LOOPBACK_RECORDS)
    records += [parse_extra_host(entry, host_gateway) for entry in extra_hosts]
    records += linked
    names = own_names(hostname, domainname)
    records += [(address, names) for address in addresses if names]
    if not ipv6:
        records = [record for record in records if ":" not in record[0]]
    _write(path, "".join(f"{address}\t{name}\n" for address, name in records).encode())


def own_names(hostname: str, domainname: str) -> str:
    """What a container calls itself in its /etc/hosts; "" when it has no name."""
    fqdn = f"{hostname}.{domainname}" if domainname else hostname
    bare = fqdn.partition(".")[0]
    return fqdn if bare == fqdn else f"{fqdn} {bare}"


def change_hosts(
    path: Path,
    *,
    add: Sequence[tuple[str, str]] = (),
    drop: Sequence[str] = (),
    forget: Sequence[str] = (),
) -> None:
    """Change a running container's /etc/hosts: in place, as it is mounted in the container.

    What the container has written there stays; a file that it has made larger than 1 MiB is only added to.

    Args:
        add: addresses and names.
        drop: addresses whose lines go.
        forget: names; lines go that have one as the first, but for those that every container has.
    """
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "r+b", buffering=0) as file:
        if (drop or forget) and os.fstat(fd).st_size <= _READ_BYTES:
            lines = file.read().splitlines(keepends=True)
            kept = b"".join(line for line in lines if not _is_about(line, drop, forget))
            file.seek(0)
            file.write(kept)
            file.truncate()
        file.seek(0, os.SEEK_END)
        file.write("".join(f"{address}\t{name}\n" for address, name in add).encode())


def _is_about(line: bytes, addresses: Sequence[str], names: Sequence[str]) -> bool:
    address, _, rest = line.decode(errors="replace").partition("\t")
    if address in addresses:
        return True
    return rest.split()[:1] in [[name] for name in names] and address not in dict(_LOOPBACK_RECORDS)


def parse_extra_host(entry: str, host_gateway: str) -> tuple[str, str]:
    """Address and name of one `--add-host`.

    Raises:
        InvalidParameter: with Docker's words.
    """
    name, colon, address = entry.partition(":")
    if not colon or not name or any(character.isspace() for character in name):
        raise InvalidParameter(f'bad format for add-host: "{entry}"')
    if address == _HOST_GATEWAY:
        if not host_gateway:
            raise InvalidParameter(
                "unable to derive the IP value for host-gateway: there is no bridge network"
            )
        address = host_gateway
    try:
        return str(ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))), name
    except ValueError as error:
        raise InvalidParameter(f'invalid IP address in add-host: "{address}"') from error


def write_hostname(path: Path, hostname: str) -> None:
    """Write a container's /etc/hostname."""
    _write(path, f"{hostname}\n".encode())


def write_resolv_conf(
    path: Path,
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    host_mode: bool = False,
    host_path: Path | None = None,
) -> None:
    """Write a container's /etc/resolv.conf, with the content of `resolv_conf`.

    Raises:
        InvalidParameter: when a server is not an IP address.
    """
    content = resolv_conf(
        servers=servers, search=search, options=options, host_mode=host_mode, host_path=host_path
    )
    _write(path, content)


def resolv_conf(
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    host_mode: bool = False,
    host_path: Path | None = None,
) -> bytes:
    """A /etc/resolv.conf: the host's, suited to a network namespace of its own.

    The host's loopback resolvers (and IPv6 ones, the bridge having no IPv6) cannot be reached from there and
    are left out; when none remains, two public ones take their place.

    Args:
        servers, search, options: replace the host's, each where given; a search of "." means none.
        host_mode: the container shares the host's network, so that every resolver can be reached.
        host_path: the host's file; by default /etc/resolv.conf, or systemd-resolved's own list when the
            former names only its stub.

    Raises:
        InvalidParameter: when a server is not an IP address.
    """
    source = host_path or (_RESOLV_CONF if host_mode else _host_resolv_conf())
    host = _parse_resolv_conf(_read(source))
    notes = []
    if servers:
        for server in servers:
            if _address(server) is None:
                raise InvalidParameter(f"bad nameserver address: {server} is not an IP address")
        host["nameserver"] = list(servers)
    elif not host_mode:
        host["nameserver"] = [server for server in host["nameserver"] if _reachable(server)]
        if not host["nameserver"]:
            host["nameserver"] = list(_FALLBACK_SERVERS)
            notes.append("# Used default nameservers.")
    if search:
        host["search"] = [domain for domain in search if domain != "."]
    if options:
        host["options"] = list(options)
    given = (("nameservers", servers), ("search", search), ("options", options))
    return _resolv_conf(host["nameserver"], host, f"'{source}'", notes, given)


@dataclass(frozen=True, slots=True)
class Resolution:
    """How a container whose names the resolver answers has them resolved.

    Attributes:
        content: its /etc/resolv.conf.
        upstreams: whom the resolver asks in its place.
        ndots_set: an `ndots` was asked for.
    """

    content: bytes
    upstreams: tuple[Upstream, ...]
    ndots_set: bool


def plan_resolution(
    *,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    host_path: Path = _RESOLV_CONF,
) -> Resolution:
    """A resolv.conf that names the resolver at 127.0.0.11, and whom that asks in its turn.

    Name servers of the host's own file that only the host can reach, on its loopback or by IPv6, are asked
    from there; `servers` are asked from the container, its own loopback included.

    Args:
        servers, search, options: as for `write_resolv_conf`.

    Raises:
        InvalidParameter: when a server is not an IP address.
    """
    host = _parse_resolv_conf(_read(host_path))
    notes = []
    if servers:
        for server in servers:
            if _address(server) is None:
                raise InvalidParameter(f"bad nameserver address: {server} is not an IP address")
        upstreams = [_upstream(server, _is_ipv6(server)) for server in servers if server != ADDRESS]
    else:
        upstreams = [_upstream(server, not _reachable(server)) for server in host["nameserver"]]
        if not upstreams:
            upstreams = [Upstream(server) for server in _FALLBACK_SERVERS]
            notes.append("# Used default nameservers.")
    if search:
        host["search"] = [domain for domain in search if domain != "."]
    if options:
        host["options"] = list(options)
    host["options"] = [option for option in host["options"] if not _is_bad_ndots(option)]
    ndots_set = any(option.startswith("ndots:") for option in host["options"])
    if not ndots_set:
        host["options"].append("ndots:0")
    shown = (f"host({one.address})" if one.from_host else one.address for one in upstreams)
    notes.append(f"# ExtServers: [{' '.join(shown)}]")
    given = (("nameservers", servers), ("search", search), ("options", options))
    source = f"'{host_path}' (internal resolver)"
    notes_behind = [
        f"# Option ndots from: {'internal' if not ndots_set else 'override' if options else 'host'}"
    ]
    content = _resolv_conf([ADDRESS], host, source, notes, given, notes_behind)
    return Resolution(content, tuple(upstreams), ndots_set)


def write_resolution(path: Path, resolution: Resolution) -> None:
    """Write a container's /etc/resolv.conf."""
    _write(path, resolution.content)


def change_resolv_conf(path: Path, before: bytes, after: bytes) -> bool:
    """Change the file of a running container, unless somebody else has; whether it was changed.

    It is written in place, since the container has this very file mounted.

    Args:
        before: what was written at its start.
    """
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.pread(fd, len(before) + 1, 0) != before:
            return False
        os.pwrite(fd, after, 0)
        os.ftruncate(fd, len(after))
        return True
    finally:
        os.close(fd)


def _upstream(server: str, from_host: bool) -> Upstream:
    address, _, zone = server.partition("%")
    scope = 0
    if zone:
        with contextlib.suppress(OSError):  # no such interface now
            scope = socket.if_nametoindex(zone)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    # In the kernel's spelling, by which its answers are known.
    return Upstream(socket.inet_ntop(family, socket.inet_pton(family, address)), from_host, scope)


def _is_ipv6(server: str) -> bool:
    return isinstance(_address(server), ipaddress.IPv6Address)


def _is_bad_ndots(option: str) -> bool:
    name, _, value = option.partition(":")
    return name == "ndots" and not value.isdecimal()


def _resolv_conf(
    servers: Sequence[str],
    parsed: dict[str, list[str]],
    source: str,
    notes: Sequence[str],
    given: Sequence[tuple[str, Sequence[str]]],
    notes_behind: Sequence[str] = (),
) -> bytes:
    """The file's text, with Docker's comments on how it came about."""
    lines = [f"nameserver {server}" for server in servers]
    lines += [f"{name} {' '.join(parsed[name])}" for name in ("search", "options") if parsed[name]]
    lines += parsed["other"]
    overrides = " ".join(name for name, values in given if values)
    head = ["# Generated by Sampan, anew at each start of the container.", ""]
    tail = ["", f"# Based on host file: {source}", *notes, f"# Overrides: [{overrides}]", *notes_behind, ""]
    return "\n".join([*head, *lines, *tail]).encode()


def host_nameservers() -> list[ipaddress.IPv4Address]:
    """The IPv4 resolvers this machine uses, loopback ones left out."""
    found = [_address(server) for server in _parse_resolv_conf(_read(_host_resolv_conf()))["nameserver"]]
    return [
        address for address in found if isinstance(address, ipaddress.IPv4Address) and not address.is_loopback
    ]


def _host_resolv_conf() -> Path:
    if (
        _parse_resolv_conf(_read(_RESOLV_CONF))["nameserver"] == _SYSTEMD_STUB
        and _SYSTEMD_RESOLV_CONF.exists()
    ):
        return _SYSTEMD_RESOLV_CONF
    return _RESOLV_CONF


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _parse_resolv_conf(content: str) -> dict[str, list[str]]:
    parsed: dict[str, list[str]] = {"nameserver": [], "search": [], "options": [], "other": []}
    for line in content.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver":
            parsed["nameserver"] += [word for word in words[1:2] if _address(word) is not None]
        elif words[0] in ("search", "domain"):
            parsed["search"] = words[1:] or parsed["search"]
        elif words[0] == "options":
            parsed["options"] += words[1:]
        else:
            parsed["other"].append(line)
    return parsed


def _address(server: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(server)
    except ValueError:
        return None


def _reachable(server: str) -> bool:
    address = _address(server)
    return isinstance(address, ipaddress.IPv4Address) and not address.is_loopback


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o644)  # whatever the umask says
            file.write(content)
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
