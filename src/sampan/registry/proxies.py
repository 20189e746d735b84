"""Which proxy a URL goes through: daemon.json's `proxies`, or the environment, by Go's rules.

https://pkg.go.dev/golang.org/x/net/http/httpproxy : lower-case variables win over none, loopback is never
proxied, and NO_PROXY holds names (with their subdomains), `.suffix`, addresses, CIDRs, each with an optional
port, or `*`.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from sampan.dataclasses import dataclass
from sampan.registry.errors import InvalidRegistryConfig


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxy URLs for http and https, and the hosts that are reached without one."""

    http: str = ""
    https: str = ""
    no_proxy: str = ""

    def __post_init__(self) -> None:
        for url in (self.http, self.https):
            _check(url)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **given: str) -> Proxies:
        """What was configured (`http`, `https`, `no_proxy`), and for what was not the environment."""
        env = os.environ if environment is None else environment

        def find(name: str) -> str:
            return given.get(name) or ""

        def variable(name: str) -> str:
            return env.get(name.upper()) or env.get(name.lower()) or ""

        return cls(
            find("http") or variable("http_proxy"),
            find("https") or variable("https_proxy"),
            find("no_proxy") or variable("no_proxy"),
        )

    def for_url(self, url: str) -> str:
        """The proxy's URL for a request to `url`, "" for none."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        if not proxy or self._is_exempt(parts.hostname or "", parts.port or _PORTS[parts.scheme]):
            return ""
        return proxy if "://" in proxy else f"http://{proxy}"

    def _is_exempt(self, host: str, port: int) -> bool:
        if host == "localhost":
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            address = None
        if address is not None and address.is_loopback:
            return True
        for item in self.no_proxy.split(","):
            rule = item.strip().lower()
            if rule == "*":
                return True
            if rule and _matches(rule, host, port, address):
                return True
        return False

    def shown(self) -> tuple[str, str, str]:
        """The three settings for people to see, passwords masked."""
        return _masked(self.http), _masked(self.https), self.no_proxy


_PORTS = {"http": 80, "https": 443}


def _matches(
    rule: str, host: str, port: int, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
) -> bool:
    try:
        network = ipaddress.ip_network(rule, strict=False)
        return address is not None and address in network
    except ValueError:
        pass  # a name
    name, colon, wanted = rule.rpartition(":")
    if colon and wanted.isdigit():
        if int(wanted) != port:
            return False
        rule = name
    if address is not None:
        return rule.strip("[]") == str(address)
    rule = rule.removeprefix("*")
    if rule.startswith("."):
        return host.endswith(rule)
    return host == rule or host.endswith(f".{rule}")


def _check(url: str) -> None:
    scheme = url.partition("://")[0] if "://" in url else "http"
    if url and scheme not in ("http", "https"):
        raise InvalidRegistryConfig(f"proxy {_masked(url)}: only http:// and https:// proxies are offered")


def _masked(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "", url
    secret, at, host = rest.rpartition("@")
    return f"{scheme}{mark}xxxxx:xxxxx@{host}" if at and secret else url
