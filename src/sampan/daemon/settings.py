"""All that flags and `daemon.json` decide, checked and with defaults."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Sequence
from dataclasses import field
from pathlib import Path

from sampan import places
from sampan.daemon.options import Values, merge, parse_flags, read_file
from sampan.dataclasses import dataclass
from sampan.engine.model import Ulimit
from sampan.engine.options import OWN_RUNTIME, EngineOptions, known_runtimes
from sampan.errors import InvalidParameter, Unsupported
from sampan.logdrivers import options as log_options
from sampan.logs import LOG_FORMATS, LOG_LEVELS
from sampan.network import AddressPool, BridgeOptions
from sampan.network.ports import MODES
from sampan.network.subnets import check_pools
from sampan.registry import Proxies, RegistryConfig

DEFAULT_GROUP = "sampan"
TLS_HOST = "tcp://localhost:2376"  # what dockerd, too, listens on with TLS and no host


@dataclass(slots=True)
class TlsSettings:
    """Certificates for tcp:// hosts."""

    verify: bool
    ca: str
    certificate: str
    key: str


@dataclass(slots=True)
class Settings:
    """The daemon's settings.

    Attributes:
        group: of the unix sockets; `group_named` says that somebody asked for it.
        tls: None when TCP is plain, which `plaintext_tcp` must allow.
        keeper: without root, the connection to `sampan.rootless.keeper`.
        metrics_address: host and port where Prometheus may ask.
        config_file: what SIGHUP reads again; `flags` are what it is merged with, `file` what it said.
    """

    engine: EngineOptions
    bridge: BridgeOptions
    registry: RegistryConfig
    hosts: list[str]
    pidfile: Path
    storage_driver: str | None
    storage_options: list[str]
    group: str
    group_named: bool
    tls: TlsSettings | None
    plaintext_tcp: bool
    log_level: str
    log_format: str
    metrics_address: tuple[str, int] | None
    idle_exit_s: int
    shutdown_containers: bool
    ready_fd: int | None
    config_file: Path
    config_required: bool
    keeper: socket.socket | None = None
    flags: Values = field(default_factory=dict)
    file: Values = field(default_factory=dict)


def load_settings(arguments: Sequence[str]) -> Settings:
    """Settings from a command line and the configuration file it names.

    Raises:
        InvalidParameter: with one line that says what is wrong.
    """
    return settle(parse_flags(arguments))


def settle(flags: Values, rootless: bool = False) -> Settings:
    """Settings from parsed flags and the configuration file.

    Args:
        rootless: the daemon is an ordinary user's, whose places are the user's own.
    """
    own = places.of_user() if rootless else places.OF_MACHINE
    config_file = Path(flags.get("config-file", own.config))
    required = "config-file" in flags
    file = read_file(config_file, required)
    values = merge({name: value for name, value in flags.items() if name != "config-file"}, file)
    exec_root = _absolute(values, "exec-root", own.exec_root)
    level = values.get("log-level", "info")
    if level not in LOG_LEVELS:
        raise InvalidParameter(f"log-level: {level!r} is none of {', '.join(LOG_LEVELS)}")
    form = values.get("log-format", "text")
    if form not in LOG_FORMATS:
        raise InvalidParameter(f"log-format: {form!r} is none of {', '.join(LOG_FORMATS)}")
    if not values.get("live-restore", True):
        raise Unsupported(
            "live-restore: containers always outlive the daemon, unless --shutdown-containers says not to"
        )
    debug = bool(values.get("debug", False))
    _check_exec_opts(values.get("exec-opts", []))
    path = own.socket if "exec-root" not in values else f"{exec_root}/sampan.sock"
    tls = _tls(values)
    hosts = values.get("hosts") or [f"unix://{path}" if tls is None else TLS_HOST]
    if rootless:
        check_rootless(values)
    settings = Settings(
        engine=_engine(values, exec_root, Path(own.data_root), debug),
        bridge=_bridge(values, "proxy" if rootless else "nat"),
        registry=_registry(values),
        hosts=[normal_host(host, path) for host in hosts],
        pidfile=_absolute(values, "pidfile", str(exec_root / "sampand.pid")),
        storage_driver=values.get("storage-driver") or None,
        storage_options=values.get("storage-opts", []),
        group=values.get("group", "" if rootless else DEFAULT_GROUP),
        group_named="group" in values,
        tls=tls,
        plaintext_tcp=values.get("allow-plaintext-tcp", False),
        log_level="debug" if debug else level,
        log_format=form,
        metrics_address=_metrics_address(values.get("metrics-addr", "")),
        idle_exit_s=values.get("idle-exit", 0),
        shutdown_containers=values.get("shutdown-containers", False),
        ready_fd=values.get("ready-fd"),
        config_file=config_file,
        config_required=required,
        flags=flags,
        file=file,
    )
    if settings.tls is None and not settings.plaintext_tcp:
        for host in settings.hosts:
            if host.startswith("tcp://"):
                raise InvalidParameter(
                    f"{host}: whoever reaches an API without TLS is root here: use --tlsverify with "
                    "--tlscacert, --tlscert and --tlskey, or say --allow-plaintext-tcp"
                )
    return settings


def normal_host(host: str, default_path: str) -> str:
    """A host as a complete URL.

    Args:
        default_path: of `unix://`.

    Raises:
        InvalidParameter: it cannot be parsed.
    """
    scheme, mark, rest = host.partition("://")
    if not mark:
        scheme, rest = ("unix", host) if host.startswith("/") else ("tcp", host)
    if scheme == "unix":
        path = rest or default_path
        if not path.startswith("/"):
            raise InvalidParameter(f"host {host}: the socket's path must be absolute")
        if len(path.encode()) > 107:
            raise InvalidParameter(f"host {host}: the kernel takes socket paths of at most 107 bytes")
        return f"unix://{path}"
    if scheme == "fd":
        return "fd://"
    if scheme != "tcp":
        raise InvalidParameter(f"host {host}: use unix://PATH, tcp://HOST:PORT or fd://")
    name, _, port = rest.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidParameter(f"host {host}: a port is missing, such as tcp://127.0.0.1:2376")
    return f"tcp://{name or '127.0.0.1'}:{port}"


def _metrics_address(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    name, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidParameter(f"metrics-addr: {text!r} must be HOST:PORT, such as 127.0.0.1:9323")
    return name.strip("[]"), int(port)


def _absolute(values: Values, name: str, default: str) -> Path:
    path = Path(values.get(name, default))
    if not path.is_absolute():
        raise InvalidParameter(f"{name}: {str(path)!r} must be an absolute path")
    return path


def _engine(values: Values, exec_root: Path, data_root: Path, debug: bool) -> EngineOptions:
    driver = values.get("log-driver", "json-file")
    try:
        log_options.check(driver, values.get("log-opts", {}))
    except InvalidParameter as error:
        raise InvalidParameter(f"failed to set log opts: {error.message}") from None
    options = EngineOptions(
        data_root=_absolute(values, "data-root", str(data_root)),
        exec_root=exec_root,
        default_ulimits=[parse_ulimit(text) for text in values.get("default-ulimits", [])],
        log_driver=driver,
        log_opts=dict(values.get("log-opts", {})),
        dns=values.get("dns", []),
        dns_search=values.get("dns-search", []),
        dns_opts=values.get("dns-opts", []),
        labels=_labels(values),
        init=values.get("init", False),
        debug=debug,
        shutdown_timeout_s=values.get("shutdown-timeout", 15),
    )
    options.runtimes.update(_runtimes(values))
    options.default_runtime = values.get("default-runtime") or OWN_RUNTIME
    if options.default_runtime != OWN_RUNTIME and options.default_runtime not in known_runtimes(options):
        raise InvalidParameter(
            f"default-runtime: specified default runtime {options.default_runtime!r} does not exist"
        )
    for address in options.dns:
        _check_address(address)
    if values.get("cgroup-parent"):
        options.cgroup_parent = values["cgroup-parent"]
    if values.get("default-shm-size"):
        options.default_shm_size = values["default-shm-size"]
    return options


def _runtimes(values: Values) -> dict[str, tuple[str, ...]]:
    """The external runtimes that flags and file name.

    Raises:
        InvalidParameter: a name that is taken, or a path to no program.
    """
    found = {}
    for name, (path, *arguments) in values.get("runtimes", {}).items():
        if name == OWN_RUNTIME:
            raise InvalidParameter(f"runtimes: the name {name!r} is taken by the runtime that is built in")
        program = shutil.which(path)
        if program is None or not program.startswith("/"):
            raise InvalidParameter(f"runtimes: {name}: {path!r} is no program: give an absolute path")
        found[name] = (program, *arguments)
    return found


def _check_address(text: str) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, text)
            return
        except OSError:
            continue
    raise InvalidParameter(f"dns: {text!r} is not an IP address")


def _labels(values: Values) -> list[str]:
    labels: list[str] = values.get("labels", [])
    for label in labels:
        if "=" not in label:
            raise InvalidParameter(f"label: {label!r} must be KEY=VALUE")
    return labels


def check_rootless(values: Values) -> None:
    """Refuse what takes the machine's root.

    Raises:
        InvalidParameter: it was asked for.
    """
    if values.get("publish-mode") == "nat":
        raise InvalidParameter("publish-mode: nat takes root; without it ports are published by proxy")
    if values.get("group"):
        raise InvalidParameter("group: the socket of a daemon without root is its user's alone")


def _bridge(values: Values, publish_mode: str) -> BridgeOptions:
    names = {"bridge": "name"}
    values = {**values, "publish-mode": values.get("publish-mode") or publish_mode}
    mode = values["publish-mode"]
    if mode not in MODES:
        raise InvalidParameter(f"publish-mode: {mode!r} is none of {', '.join(MODES)}")
    options = (
        *("bridge", "bip", "bip6", "fixed-cidr-v6", "ipv6", "mtu", "icc", "ip-forward", "ip-masq"),
        *("iptables", "publish-mode"),
    )
    given = {
        names.get(option, option.replace("-", "_")): values[option]
        for option in options
        if values.get(option) not in (None, "")
    }
    pools = tuple(AddressPool(base, size) for base, size in values.get("default-address-pools", ()))
    check_pools(pools)
    return BridgeOptions(**given, address_pools=pools)


def _registry(values: Values) -> RegistryConfig:
    names = (
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "push-compression",
    )
    given = {name.replace("-", "_"): values[name] for name in names if name in values}
    proxies = Proxies.from_environment(
        http=values.get("http-proxy", ""),
        https=values.get("https-proxy", ""),
        no_proxy=values.get("no-proxy", ""),
    )
    return RegistryConfig(
        insecure=values.get("insecure-registries", []),
        mirrors=values.get("registry-mirrors", []),
        proxies=proxies,
        **given,
    )


def _tls(values: Values) -> TlsSettings | None:
    verify = values.get("tlsverify", False)
    if not (verify or values.get("tls", False)):
        for name in ("tlscacert", "tlscert", "tlskey"):
            if values.get(name):
                raise InvalidParameter(f"{name}: is of no use without --tlsverify, or --tls")
        return None
    for name in ("tlscert", "tlskey", *(("tlscacert",) if verify else ())):
        if not values.get(name):
            raise InvalidParameter(f"{'tlsverify' if verify else 'tls'} needs --{name} FILE")
    return TlsSettings(verify, values.get("tlscacert", ""), values["tlscert"], values["tlskey"])


def _check_exec_opts(options: list[str]) -> None:
    for option in options:
        key, _, value = option.partition("=")
        if key != "native.cgroupdriver":
            raise InvalidParameter(f"exec-opt: {key!r} is not known")
        if value == "systemd":
            raise Unsupported("exec-opt: native.cgroupdriver=systemd is not offered; use cgroupfs")
        if value != "cgroupfs":
            raise InvalidParameter(f"exec-opt: native.cgroupdriver={value} is not known; use cgroupfs")


def parse_ulimit(text: str) -> Ulimit:
    """`nofile=1024:2048` as a limit; the hard one is the soft one when it is not given.

    Raises:
        InvalidParameter: it is not written so.
    """
    found = re.fullmatch(r"([a-z]+)=(-1|\d{1,19})(?::(-1|\d{1,19}))?", text)
    if found is None:
        raise InvalidParameter(f"default-ulimit: {text!r} must be NAME=SOFT[:HARD]")
    soft = int(found[2])
    hard = int(found[3]) if found[3] else soft
    if hard != -1 and (soft == -1 or soft > hard):
        raise InvalidParameter(f"default-ulimit: {text}: the soft limit is above the hard one")
    return Ulimit(found[1], soft, hard)
