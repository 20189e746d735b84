"""What the daemon's settings say about registries; keys and checks are dockerd's."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import field
from pathlib import Path
from urllib.parse import urlsplit

from sampan.dataclasses import dataclass
from sampan.registry.errors import InvalidRegistryConfig
from sampan.registry.proxies import Proxies

CERTS_DIRECTORIES = (Path("/etc/sampan/certs.d"), Path("/etc/docker/certs.d"))
LOOPBACK = ("::1/128", "127.0.0.0/8")
COMPRESSIONS = ("gzip", "zstd")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class RegistryConfig:
    """How registries are reached.

    Attributes:
        insecure: `host`, `host:port` or CIDR of registries that may have an unknown certificate or none.
        mirrors: URLs that are asked before Docker Hub.
        certs_directories: where `<host[:port]>/` holds hosts.toml, *.crt, *.cert and *.key; the first
            directory that knows a host decides.
        max_concurrent_downloads, max_concurrent_uploads: blobs at a time, of one pull or push.
        max_download_attempts: how often a blob is tried when the network or the registry fails.
        push_compression: "gzip" or "zstd", for layers that the store has uncompressed.
        connect_timeout_s: for a connection and its TLS.
        stall_timeout_s: how long a registry may be silent, or all but silent, in the midst of an answer.
        retry_delay_s: before the second attempt; it doubles with each further one.
    """

    insecure: list[str] = field(default_factory=list)
    mirrors: list[str] = field(default_factory=list)
    certs_directories: tuple[Path, ...] = CERTS_DIRECTORIES
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    push_compression: str = "gzip"
    proxies: Proxies = field(default_factory=Proxies)
    connect_timeout_s: float = 30.0
    stall_timeout_s: float = 60.0
    retry_delay_s: float = 1.0

    def __post_init__(self) -> None:
        self.mirrors = [_mirror(url) for url in self.mirrors]
        self.insecure = [_insecure(text) for text in self.insecure]
        if self.push_compression not in COMPRESSIONS:
            raise InvalidRegistryConfig(
                f"push-compression: {self.push_compression!r} is none of {', '.join(COMPRESSIONS)}"
            )
        for name in ("max_concurrent_downloads", "max_concurrent_uploads", "max_download_attempts"):
            if getattr(self, name) < 1:
                raise InvalidRegistryConfig(f"{name.replace('_', '-')}: must be at least 1")

    @property
    def insecure_networks(self) -> list[str]:
        """The networks whose registries need no certificate, loopback first, as `info` shows them."""
        return [*LOOPBACK, *(item for item in self.insecure if "/" in item)]

    @property
    def insecure_hosts(self) -> list[str]:
        """The registries that are named as insecure themselves."""
        return [item for item in self.insecure if "/" not in item]

    def is_insecure(self, host: str) -> bool:
        """Whether `host[:port]` may be spoken to without a trusted certificate, or in plain HTTP.

        A name is insecure too when one of its addresses lies in an insecure network, as for dockerd.
        """
        name, _ = split_port(host)
        if host in self.insecure or name in self.insecure or name == "localhost":
            return True
        networks = [ipaddress.ip_network(text, strict=False) for text in self.insecure_networks]
        return any(address in network for address in _addresses(name) for network in networks)


def split_port(host: str) -> tuple[str, int | None]:
    """Name and port of `host`, `host:port`, `[::1]` or `[::1]:port`; the name without brackets."""
    if host.startswith("["):
        name, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        name, _, port = host.partition(":")
    return name, int(port) if port.isdigit() else None


def _addresses(name: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        return [ipaddress.ip_address(name)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]


def _mirror(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidRegistryConfig(f'invalid mirror: "{url}" is not a valid URI') from None
    if parts.scheme not in ("http", "https"):
        raise InvalidRegistryConfig(
            f'invalid mirror: unsupported scheme "{parts.scheme}" in "{url}": must use either \'https://\''
            " or 'http://'"
        )
    if not parts.hostname or port == 0:
        raise InvalidRegistryConfig(f'invalid mirror: "{url}" is not a valid URI')
    if parts.query or parts.fragment:
        raise InvalidRegistryConfig(f'invalid mirror: query or fragment at end of the URI "{url}"')
    if parts.username is not None:
        raise InvalidRegistryConfig(
            f'invalid mirror: username/password not allowed in URI "{parts.hostname}"'
        )
    return url.rstrip("/") + "/"


def _insecure(text: str) -> str:
    for scheme in ("http://", "https://"):
        text = text.removeprefix(scheme)
    if "://" in text:
        raise InvalidRegistryConfig(f"insecure registry {text} should not contain '://'")
    text = text.rstrip("/")
    if "/" in text:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise InvalidRegistryConfig(f"insecure registry {text} is neither a host nor a CIDR") from None
        return text
    name, port = split_port(text)
    bad = text.startswith("-") or text.endswith("-") or not name or (":" in name and text[0] != "[")
    rest = text.partition("]")[2] if text.startswith("[") else text[len(name) :]
    if bad or (rest and (port is None or not 0 < port < 65536)):
        raise InvalidRegistryConfig(f"insecure registry {text} is not valid: expected host[:port] or a CIDR")
    return text
