"""The addresses of a registry: its mirrors in order, then itself, with the TLS settings of each.

`certs.d/<host[:port]>/hosts.toml` has containerd's format (containerd, docs/hosts.md); `certs.d/_default` is
for registries without a directory. Beside it, or instead of it, Docker's files: `*.crt` are authorities,
`x.cert` with `x.key` is a client certificate (https://docs.docker.com/engine/security/certificates/).
"""

from __future__ import annotations

import posixpath
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sampan.dataclasses import dataclass
from sampan.registry.config import RegistryConfig
from sampan.registry.errors import InvalidRegistryConfig

HUB = "docker.io"
_HUB_SERVER = "registry-1.docker.io"
_ALL = frozenset(("pull", "resolve", "push"))
_KNOWN = frozenset(("capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"))


@dataclass(frozen=True, slots=True)
class Tls:
    """How a host proves itself, and we ourselves to it."""

    authorities: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path | None], ...] = ()
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a registry.

    Attributes:
        url: up to and including `/v2`.
        capabilities: of "pull", "resolve" and "push".
        headers: sent with every request to this address.
        plain_fallback: an insecure registry: when https fails, http is tried.
        is_origin: the registry itself, which gets the user's credentials; mirrors do not.
        namespace: told to a mirror that serves several registries (`?ns=`); "" to tell nothing.
        connect_timeout_s: None for the common one.
    """

    url: str
    capabilities: frozenset[str] = _ALL
    tls: Tls = Tls()
    headers: tuple[tuple[str, str], ...] = ()
    plain_fallback: bool = False
    is_origin: bool = True
    namespace: str = ""
    connect_timeout_s: float | None = None

    @property
    def host(self) -> str:
        """`host[:port]`."""
        return urlsplit(self.url).netloc


def endpoints(domain: str, config: RegistryConfig) -> list[Endpoint]:
    """Where to reach the registry `domain` (as in a reference), in the order to try.

    Raises:
        InvalidRegistryConfig: the files for this registry cannot be used.
    """
    directory = _directory(domain, config) or _directory("_default", config)
    table: dict[str, Any] = {}
    if directory is not None and (directory / "hosts.toml").exists():
        table = _read(directory / "hosts.toml")
    found = [
        _from_table(url, entry, domain, config, directory) for url, entry in table.get("host", {}).items()
    ]
    if domain == HUB and not found:
        found = [_hub_mirror(url, config) for url in config.mirrors]
    found.append(_origin(domain, table, config, directory))
    return found


def _origin(domain: str, table: dict[str, Any], config: RegistryConfig, directory: Path | None) -> Endpoint:
    server = table.get("server")
    if server is not None:
        settings = {key: value for key, value in table.items() if key not in ("server", "host")}
        return _from_table(server, settings, domain, config, directory, is_origin=True)
    host = _HUB_SERVER if domain == HUB else domain
    insecure = domain != HUB and config.is_insecure(host)
    tls = _tls({}, host, config, insecure, directory)
    return Endpoint(f"https://{host}/v2", tls=tls, plain_fallback=insecure)


def _hub_mirror(url: str, config: RegistryConfig) -> Endpoint:
    parts = urlsplit(url)
    insecure = config.is_insecure(parts.netloc)
    return Endpoint(
        f"{parts.scheme}://{parts.netloc}{_v2_path(parts.path, False)}",
        frozenset(("pull", "resolve")),
        _tls({}, parts.netloc, config, insecure, None),
        is_origin=False,
    )


def _from_table(
    url: Any,
    entry: Any,
    domain: str,
    config: RegistryConfig,
    directory: Path | None,
    is_origin: bool = False,
) -> Endpoint:
    def wrong(text: str) -> InvalidRegistryConfig:
        return InvalidRegistryConfig(f"{directory}/hosts.toml: {text}")

    if not isinstance(url, str) or not isinstance(entry, dict):
        raise wrong("server must be a text, and each host a table")
    for key in entry:
        if key not in _KNOWN:
            raise wrong(f"unknown key {key!r}")
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise ValueError
    except ValueError:
        raise wrong(f"{url!r} is not an address of a registry") from None
    capabilities = entry.get("capabilities", sorted(_ALL))
    if not isinstance(capabilities, list) or not set(map(str, capabilities)) <= _ALL:
        raise wrong(f"capabilities must be of {', '.join(sorted(_ALL))}")
    for key in ("skip_verify", "override_path"):
        if not isinstance(entry.get(key, False), bool):
            raise wrong(f"{key} must be true or false")
    skip = entry.get("skip_verify", False)
    insecure = is_origin and config.is_insecure(parts.netloc)
    default = _HUB_SERVER if domain == HUB else domain
    return Endpoint(
        f"{parts.scheme}://{parts.netloc}{_v2_path(parts.path, entry.get('override_path', False))}",
        frozenset(capabilities),
        _tls(entry, parts.netloc, config, skip or insecure, directory),
        _headers(entry.get("header", {}), wrong),
        plain_fallback=insecure and parts.scheme == "https",
        is_origin=is_origin or parts.netloc == default,
        namespace="" if parts.netloc in (domain, default) else domain,
        connect_timeout_s=_seconds(entry.get("dial_timeout"), wrong),
    )


def _v2_path(path: str, override: bool) -> str:
    path = "" if path in ("", "/") else posixpath.normpath(path)
    return path if override or path.endswith("/v2") else f"{path}/v2"


def _headers(table: Any, wrong: Any) -> tuple[tuple[str, str], ...]:
    if not isinstance(table, dict):
        raise wrong("header must be a table")
    found = []
    for name, value in table.items():
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str) and item.isprintable() for item in values):
            raise wrong(f"header {name!r} must be a text or a list of texts")
        found.append((name, ", ".join(values)))
    return tuple(found)


def _seconds(value: Any, wrong: Any) -> float | None:
    if value is None:
        return None
    units = {"ms": 0.001, "s": 1.0, "m": 60.0}
    for unit, factor in units.items():
        if isinstance(value, str) and value.endswith(unit):
            try:
                seconds = float(value.removesuffix(unit)) * factor
            except ValueError:
                continue
            if seconds > 0:
                return seconds
    raise wrong(f"dial_timeout {value!r} must be a duration such as 10s")


def _read(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        table = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InvalidRegistryConfig(f"{path}: cannot be read: {error}") from None
    if not isinstance(table.get("host", {}), dict):
        raise InvalidRegistryConfig(f'{path}: host must be tables, such as [host."https://mirror.example"]')
    return table


def _directory(host: str, config: RegistryConfig) -> Path | None:
    """The directory of certs.d that knows this host."""
    if "/" in host or host.startswith("."):
        return None
    for root in config.certs_directories:
        if (root / host).is_dir():
            return root / host
    return None


def _tls(
    entry: dict[str, Any], host: str, config: RegistryConfig, insecure: bool, directory: Path | None
) -> Tls:
    """TLS settings: what hosts.toml says, and for what it does not say the files in certs.d/<host>."""
    authorities = _paths(entry.get("ca", []), directory)
    client = _pairs(entry.get("client", []), directory)
    files = _directory(host, config)
    if files is not None:
        authorities = authorities or tuple(sorted(files.glob("*.crt")))
        client = client or _docker_pairs(files)
    return Tls(authorities, client, not insecure)


def _docker_pairs(directory: Path) -> tuple[tuple[Path, Path | None], ...]:
    pairs: list[tuple[Path, Path | None]] = []
    for certificate in sorted(directory.glob("*.cert")):
        key = certificate.with_suffix(".key")
        if not key.exists():
            raise InvalidRegistryConfig(
                f"missing key {key.name} for client certificate {certificate.name}. CA certificates must use"
                " the extension .crt"
            )
        pairs.append((certificate, key))
    for key in sorted(directory.glob("*.key")):
        if not key.with_suffix(".cert").exists():
            raise InvalidRegistryConfig(f"missing client certificate {key.stem}.cert for key {key.name}")
    return tuple(pairs)


def _path(value: Any, directory: Path | None) -> Path:
    if not isinstance(value, str) or not value:
        raise InvalidRegistryConfig(f"{directory}/hosts.toml: ca and client must name files")
    return (directory or Path("/")) / value


def _paths(value: Any, directory: Path | None) -> tuple[Path, ...]:
    return tuple(_path(item, directory) for item in (value if isinstance(value, list) else [value]))


def _pairs(value: Any, directory: Path | None) -> tuple[tuple[Path, Path | None], ...]:
    """`client`: "both.pem", ["a.pem", …], or [["a.cert", "a.key"], …]."""
    pairs: list[tuple[Path, Path | None]] = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, list):
            if len(item) not in (1, 2):
                raise InvalidRegistryConfig(f"{directory}/hosts.toml: client must be pairs of cert and key")
            key = _path(item[1], directory) if len(item) == 2 and item[1] else None
            pairs.append((_path(item[0], directory), key))
        else:
            pairs.append((_path(item, directory), None))
    return tuple(pairs)
