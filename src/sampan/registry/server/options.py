"""The registry's command line: `sampan registry serve` and `sampan registry gc`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from sampan import __version__
from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
from sampan.logs import LOG_LEVELS
from sampan.oci.quantities import parse_size
from sampan.registry.server.store import Limits
from sampan.registry.server.tokens import TokenSettings

DEFAULT_PORT = 5000
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


@dataclass(slots=True)
class ProxySettings:
    """A cache of another registry.

    Attributes:
        url: the registry's.
        user, password_file: what it is asked with; "" for nobody.
        ttl_s: how long a tag is served before upstream is asked again.
        keep_s: how long a blob stays that nobody reads; 0 for ever.
        certificates: `<host>/ca.crt` and so on below it, as in /etc/docker/certs.d.
    """

    url: str
    user: str = ""
    password_file: str = ""
    ttl_s: float = 300.0
    keep_s: float = 7 * 86400.0
    certificates: str = ""


@dataclass(slots=True)
class Settings:
    """All that the command line decides."""

    command: str
    root: Path
    listen: list[str] = field(default_factory=list)
    limits: Limits = field(default_factory=Limits)
    log_level: str = "info"
    certificate: str = ""
    key: str = ""
    client_authority: str = ""
    htpasswd: str = ""
    realm: str = "Sampan registry"
    tokens: TokenSettings | None = None
    read_only: bool = False
    deletable: bool = True
    with_page: bool = True
    proxy: ProxySettings | None = None
    gc_interval_s: float = 0.0
    untagged: bool = False
    drain_s: float = 30.0
    ready_fd: int | None = None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InvalidParameter(f"{message} (see {self.prog} --help)")


def duration(text: str) -> float:
    """Seconds of `90s`, `1h30m`, `7d`, or `0`."""
    if text == "0":
        return 0.0
    if _DURATION.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 1h30m or 7d")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def default_root() -> Path:
    """Where data goes when nobody says: the machine's place for root, else the user's own."""
    if os.geteuid() == 0:
        return Path("/var/lib/sampan-registry")
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(home) / "sampan-registry"


def _parsers() -> dict[str, _Parser]:
    serve = _Parser(
        "sampan registry serve",
        usage="sampan registry serve [OPTIONS]",
        description="Serve a registry: push, pull, search and look at images.",
        allow_abbrev=False,
    )
    add = serve.add_argument
    add("--root", metavar="DIR", help=f"where everything is kept (default {default_root()})")
    add("--listen", metavar="ADDRESS:PORT", action="append", help="where to listen (default 127.0.0.1:5000)")
    add(
        "--log-level",
        choices=list(LOG_LEVELS),
        default="info",
        help="(default info); debug logs each request",
    )
    add("--read-only", action="store_true", help="take no pushes and no deletions")
    add("--no-delete", action="store_true", help="take no deletions")
    add("--no-page", action="store_true", help="no pages for people at /")
    add(
        "--drain",
        type=duration,
        default=30.0,
        metavar="DURATION",
        help="how long running requests may take when the registry stops (default 30s)",
    )
    add(
        "--ready-fd", type=int, metavar="FD", help="write a line to this descriptor when ready, then close it"
    )
    add("--version", action="version", version=f"Sampan version {__version__}")
    group = serve.add_argument_group("TLS")
    group.add_argument("--tls-certificate", default="", metavar="FILE", help="the server's certificates, PEM")
    group.add_argument("--tls-key", default="", metavar="FILE", help="its key, PEM")
    group.add_argument(
        "--tls-client-ca",
        default="",
        metavar="FILE",
        help="demand certificates of clients that one of these authorities signed",
    )
    group = serve.add_argument_group("who may come in (everybody, when none of these is given)")
    group.add_argument("--htpasswd", default="", metavar="FILE", help="users and bcrypt hashes (htpasswd -B)")
    group.add_argument(
        "--realm", default="Sampan registry", metavar="NAME", help="what clients show when they ask"
    )
    group.add_argument("--token-realm", default="", metavar="URL", help="the authorization service")
    group.add_argument("--token-service", default="", metavar="NAME", help="this registry's name there")
    group.add_argument("--token-issuer", default="", metavar="NAME", help="the service's name in its tokens")
    group.add_argument(
        "--token-bundle", default="", metavar="FILE", help="certificates that its tokens lead to, PEM"
    )
    group = serve.add_argument_group("limits (0 is none; sizes such as 512m, 10g)")
    group.add_argument("--max-blob", type=_size, default=0, metavar="SIZE", help="of one blob")
    group.add_argument(
        "--max-manifest", type=_size, default=4 << 20, metavar="SIZE", help="of a manifest (default 4m)"
    )
    group.add_argument("--max-repository", type=_size, default=0, metavar="SIZE", help="of one repository")
    group.add_argument("--max-total", type=_size, default=0, metavar="SIZE", help="of everything together")
    group.add_argument(
        "--max-uploads", type=int, default=10_000, metavar="N", help="open at a time (default 10000)"
    )
    group.add_argument(
        "--upload-expiry",
        type=duration,
        default=86400.0,
        metavar="DURATION",
        help="forget uploads that rested so long (default 24h)",
    )
    group = serve.add_argument_group("garbage collection (also by SIGUSR1, and `sampan registry gc`)")
    group.add_argument(
        "--gc-interval",
        type=duration,
        default=None,
        metavar="DURATION",
        help="collect so often (default 0: never by itself; a cache: 1h)",
    )
    group.add_argument(
        "--gc-grace",
        type=duration,
        default=3600.0,
        metavar="DURATION",
        help="keep what nothing names for so long (default 1h)",
    )
    group.add_argument(
        "--gc-untagged", action="store_true", help="also remove manifests that no tag leads to"
    )
    group = serve.add_argument_group("pull-through cache")
    group.add_argument("--proxy", default="", metavar="URL", help="serve what this registry has, and keep it")
    group.add_argument("--proxy-user", default="", metavar="NAME", help="whom to be there")
    group.add_argument("--proxy-password-file", default="", metavar="FILE", help="the password's file")
    group.add_argument(
        "--proxy-ttl",
        type=duration,
        default=300.0,
        metavar="DURATION",
        help="ask again for a tag after so long (default 5m)",
    )
    group.add_argument(
        "--proxy-keep",
        type=duration,
        default=7 * 86400.0,
        metavar="DURATION",
        help="remove blobs that nobody read for so long (default 7d; 0 never)",
    )
    group.add_argument(
        "--proxy-certificates",
        default="",
        metavar="DIR",
        help="<host>/ca.crt, client.cert, client.key below it (default /etc/docker/certs.d)",
    )
    collect = _Parser(
        "sampan registry gc",
        usage="sampan registry gc [OPTIONS]",
        description="Remove what no manifest names any more, also while a registry serves the directory.",
        allow_abbrev=False,
    )
    collect.add_argument("--root", metavar="DIR", help=f"the registry's directory (default {default_root()})")
    collect.add_argument("--untagged", action="store_true", help="also remove manifests that no tag leads to")
    collect.add_argument(
        "--grace",
        type=duration,
        default=3600.0,
        metavar="DURATION",
        help="keep what is newer, when no registry is serving (default 1h)",
    )
    return {"serve": serve, "gc": collect}  # fmt: skip


def parse(arguments: Sequence[str]) -> Settings:
    """The settings of a command line.

    Raises:
        InvalidParameter: one line that says what is wrong.
        SystemExit: after --help and --version.
    """
    parsers = _parsers()
    command = arguments[0] if arguments else ""
    if command not in parsers:
        raise InvalidParameter("expected a command: serve or gc")
    values = parsers[command].parse_args(arguments[1:])
    root = Path(values.root).absolute() if values.root else default_root()
    if command == "gc":
        limits = Limits(grace_s=values.grace)
        return Settings(command, root, limits=limits, untagged=values.untagged)
    limits = Limits(
        blob_bytes=values.max_blob,
        manifest_bytes=values.max_manifest or 1 << 30,
        repository_bytes=values.max_repository,
        total_bytes=values.max_total,
        upload_expiry_s=values.upload_expiry,
        uploads=values.max_uploads or 1 << 30,
        grace_s=values.gc_grace,
    )
    return Settings(
        command=command,
        root=root,
        listen=values.listen or [f"127.0.0.1:{DEFAULT_PORT}"],
        limits=limits,
        log_level=values.log_level,
        certificate=values.tls_certificate,
        key=values.tls_key,
        client_authority=values.tls_client_ca,
        htpasswd=values.htpasswd,
        realm=_realm(values.realm),
        tokens=_tokens(values),
        read_only=values.read_only,
        deletable=not values.no_delete,
        with_page=not values.no_page,
        proxy=_proxy(values),
        gc_interval_s=_gc_interval(values),
        untagged=values.gc_untagged,
        drain_s=values.drain,
        ready_fd=values.ready_fd,
    )


def _gc_interval(values: argparse.Namespace) -> float:
    """A cache collects by itself, or `--proxy-keep` would be but a word."""
    if values.gc_interval is None:
        return min(3600.0, values.proxy_keep or 0.0) if values.proxy else 0.0
    return float(values.gc_interval)


def _realm(text: str) -> str:
    if '"' in text or "\\" in text or not text.isascii() or not text.isprintable():
        raise InvalidParameter(f"--realm: {text!r} cannot be sent: use letters of ASCII, no quotes")
    return text


def _tokens(values: argparse.Namespace) -> TokenSettings | None:
    given = {
        "--token-realm": values.token_realm,
        "--token-service": values.token_service,
        "--token-issuer": values.token_issuer,
        "--token-bundle": values.token_bundle,
    }
    if not any(given.values()):
        return None
    missing = [flag for flag, value in given.items() if not value]
    if missing:
        raise InvalidParameter(f"token authentication needs {', '.join(missing)} too")
    if values.htpasswd:
        raise InvalidParameter("--htpasswd and --token-realm exclude each other")
    return TokenSettings(
        values.token_realm, values.token_service, values.token_issuer, Path(values.token_bundle)
    )


def _proxy(values: argparse.Namespace) -> ProxySettings | None:
    if not values.proxy:
        if values.proxy_user or values.proxy_password_file:
            raise InvalidParameter("--proxy-user and --proxy-password-file need --proxy")
        return None
    parts = urlsplit(values.proxy)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.username:
        raise InvalidParameter(
            f"--proxy: {values.proxy!r} is not the URL of a registry, as https://host:port"
        )
    if bool(values.proxy_user) != bool(values.proxy_password_file):
        raise InvalidParameter("--proxy-user and --proxy-password-file go together")
    return ProxySettings(
        url=f"{parts.scheme}://{parts.netloc}",
        user=values.proxy_user,
        password_file=values.proxy_password_file,
        ttl_s=values.proxy_ttl,
        keep_s=values.proxy_keep,
        certificates=values.proxy_certificates,
    )
