"""The daemon's options: one table for flags and keys of `daemon.json`, with dockerd's names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter
from sampan.oci.quantities import parse_size


class UsageError(InvalidParameter):
    """A flag that does not exist or cannot have this value."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        flag: the long flag without dashes.
        kind: "text", "number", "bool", "size", "list" (repeatable), "map" (repeatable key=value),
            "runtimes" (repeatable name=path) or "pools" (repeatable base=…,size=…).
        help: one line.
        short: its one-letter flag.
        key: its key in `daemon.json`; the flag's name when empty, "-" when it has none.
        placeholder: what to call the value in the help.
        reload: SIGHUP takes a new value from the file.
    """

    flag: str
    kind: str
    help: str
    short: str = ""
    key: str = ""
    placeholder: str = ""
    reload: bool = False

    @property
    def name(self) -> str:
        """The name under which the value is kept."""
        return self.key if self.key not in ("", "-") else self.flag


TABLE = (
    Option("add-runtime", "runtimes", "OCI runtime that containers may ask for", key="runtimes",
           placeholder="NAME=PATH", reload=True),
    Option("allow-plaintext-tcp", "bool", "Serve tcp:// hosts without TLS: whoever reaches them is root"),
    Option("bip", "text", "Address and prefix of the bridge, such as 172.30.0.1/16", placeholder="CIDR"),
    Option("bip6", "text", "IPv6 address and prefix of the bridge, such as fd00:9::1/64", placeholder="CIDR"),
    Option("bridge", "text", 'Name of the bridge ("none" for no bridge)', "b", placeholder="NAME"),
    Option("cgroup-parent", "text", "Cgroup under which containers get theirs", placeholder="PATH"),
    Option("config-file", "text", "Configuration file", key="-", placeholder="FILE"),
    Option("data-root", "text", "Where images, containers and volumes are kept", placeholder="DIR"),
    Option("debug", "bool", "Log for debugging", "D", reload=True),
    Option("default-runtime", "text", "OCI runtime of containers that do not say", placeholder="NAME",
           reload=True),
    Option("default-address-pool", "pools", "Range that networks' subnets are taken from, and their size",
           key="default-address-pools", placeholder="base=CIDR,size=BITS"),
    Option("default-shm-size", "size", "Size of /dev/shm of containers that do not say", placeholder="BYTES",
           reload=True),
    Option("default-ulimit", "list", "Ulimit of containers that do not say", key="default-ulimits",
           placeholder="NAME=SOFT[:HARD]"),
    Option("dns", "list", "DNS server of containers that do not say", placeholder="ADDRESS"),
    Option("dns-opt", "list", "DNS option", key="dns-opts", placeholder="OPTION"),
    Option("dns-search", "list", "DNS search domain", placeholder="DOMAIN"),
    Option("exec-opt", "list", "native.cgroupdriver=cgroupfs", key="exec-opts", placeholder="KEY=VALUE"),
    Option("exec-root", "text", "Where running containers have their files", placeholder="DIR"),
    Option("fixed-cidr-v6", "text", "IPv6 subnet of the bridge, or the part of it for containers",
           placeholder="CIDR"),
    Option("group", "text", "Group that may use the unix sockets", "G", placeholder="GROUP"),
    Option("http-proxy", "text", "Proxy for http registries", placeholder="URL"),
    Option("https-proxy", "text", "Proxy for https registries", placeholder="URL"),
    Option("host", "list", "Where to listen: unix://PATH, tcp://HOST:PORT, fd://", "H", "hosts", "ADDRESS"),
    Option("icc", "bool", "Let containers reach each other on the bridge"),
    Option("idle-exit", "number", "Leave after this many idle seconds without a container; 0 never",
           placeholder="SECONDS"),
    Option("init", "bool", "Give containers an init by default"),
    Option("insecure-registry", "list", "Registry whose certificate need not be known, or that has none",
           key="insecure-registries", placeholder="HOST[:PORT]|CIDR", reload=True),
    Option("ip-forward", "bool", "Switch IPv4 forwarding on"),
    Option("ip-masq", "bool", "Give outbound traffic the host's address"),
    Option("ipv6", "bool", "Give the bridge IPv6 too"),
    Option("iptables", "bool", "Put our own nftables table in place"),
    Option("label", "list", "Label of this engine", key="labels", placeholder="KEY=VALUE", reload=True),
    Option("live-restore", "bool", "Containers outlive the daemon: always so here, and true is all it takes"),
    Option("log-driver", "text", "Log driver of containers that do not say", placeholder="NAME"),
    Option("log-format", "text", "How the daemon writes its own log: text or json", placeholder="NAME"),
    Option("log-level", "text", "debug, info, warn, error or fatal", "l", placeholder="LEVEL", reload=True),
    Option("log-opt", "map", "Option of the log driver", key="log-opts", placeholder="KEY=VALUE"),
    Option("max-concurrent-downloads", "number", "Layers that one pull fetches at a time",
           placeholder="COUNT", reload=True),
    Option("max-concurrent-uploads", "number", "Layers that one push sends at a time",
           placeholder="COUNT", reload=True),
    Option("max-download-attempts", "number", "How often a layer is tried when the network fails",
           placeholder="COUNT", reload=True),
    Option("metrics-addr", "text", "Serve metrics for Prometheus there, to whoever asks",
           placeholder="HOST:PORT"),
    Option("mtu", "number", "MTU of the bridge", placeholder="BYTES"),
    Option("no-proxy", "text", "Hosts that are reached without a proxy, by commas", placeholder="HOSTS"),
    Option("pidfile", "text", "File to write the process id to", "p", placeholder="FILE"),
    Option("publish-mode", "text", "nat, or proxy: the host's own INPUT rules decide who reaches published"
           " ports", placeholder="MODE"),
    Option("push-compression", "text", "gzip or zstd: for layers that are not compressed yet",
           placeholder="NAME", reload=True),
    Option("ready-fd", "number", "Write a line to this descriptor when ready, then close it", key="-",
           placeholder="FD"),
    Option("registry-mirror", "list", "Mirror of Docker Hub to ask first", key="registry-mirrors",
           placeholder="URL", reload=True),
    Option("rootless", "bool", "Run without root: what happens anyway when the user is not root", key="-"),
    Option("shutdown-containers", "bool", "Stop containers when the daemon stops; they live on otherwise"),
    Option("shutdown-timeout", "number", "How long a container may take to stop then", placeholder="SECONDS",
           reload=True),
    Option("storage-driver", "text", "overlay2, fuse-overlayfs, btrfs or vfs", "s", placeholder="NAME"),
    Option("storage-opt", "list", "overlay2.size=SIZE for containers that do not say", key="storage-opts",
           placeholder="KEY=VALUE"),
    Option("tls", "bool", "Serve tcp:// hosts with TLS; clients need no certificate"),
    Option("tlscacert", "text", "Authority that signed the clients' certificates", placeholder="FILE"),
    Option("tlscert", "text", "The server's certificate", placeholder="FILE"),
    Option("tlskey", "text", "The server's key", placeholder="FILE"),
    Option("tlsverify", "bool", "Serve tcp:// hosts with TLS and demand a certificate of clients"),
    Option("validate", "bool", "Check flags and configuration file, and leave", key="-"),
    Option("version", "bool", "Print the version, and leave", "v", key="-"),
    Option("help", "bool", "Print this help, and leave", "h", key="-"),
)  # fmt: skip

BY_FLAG = {option.flag: option for option in TABLE}
BY_SHORT = {option.short: option for option in TABLE if option.short}
BY_KEY = {option.name: option for option in TABLE if option.key != "-"}

PROXIES = ("http-proxy", "https-proxy", "no-proxy")  # in daemon.json members of "proxies"

# Docker's own keys and flags that mean something we do not do: refused with more than "unknown".
NOT_OFFERED = frozenset(
    "allow-nondistributable-artifacts authorization-plugins builder cdi-spec-dirs "
    "containerd containerd-namespace default-cgroupns-mode default-gateway "
    "default-ipc-mode default-network-opts features fixed-cidr "
    "experimental ip ip6tables no-new-privileges "
    "node-generic-resources raw-logs seccomp-profile selinux-enabled "
    "swarm-default-advertise-addr userland-proxy userland-proxy-path userns-remap".split()
)

Values = dict[str, Any]


def parse_flags(arguments: Sequence[str]) -> Values:
    """The values of a command line, by option name; only what was given.

    Raises:
        UsageError: one line that says what is wrong.
    """
    values: Values = {}
    words = iter(arguments)
    for word in words:
        if word.startswith("--") and len(word) > 2:
            flag, equals, text = word[2:].partition("=")
            option = BY_FLAG.get(flag)
            if option is None:
                if flag in NOT_OFFERED:
                    raise UsageError(f"--{flag} is not offered by this version of sampand")
                raise UsageError(f"unknown flag: --{flag} (see sampand --help)")
        elif word.startswith("-") and len(word) > 1 and word != "--":
            option = BY_SHORT.get(word[1])
            if option is None:
                raise UsageError(f"unknown shorthand flag: {word[1]!r} in {word} (see sampand --help)")
            equals, text = ("=", word[2:].removeprefix("=")) if len(word) > 2 else ("", "")
        else:
            raise UsageError(f"sampand takes no arguments, but got {word!r} (see sampand --help)")
        if not equals:
            if option.kind == "bool":
                text = "true"
            else:
                value = next(words, None)
                if value is None:
                    raise UsageError(f"flag needs an argument: --{option.flag}")
                text = value
        _store(values, option, text)
    return values


def _store(values: Values, option: Option, text: str) -> None:
    try:
        value = _CONVERT[option.kind](text)
    except ValueError:
        raise UsageError(
            f"invalid argument {text!r} for --{option.flag}: expected {_WANT[option.kind]}"
        ) from None
    if option.kind in ("list", "pools"):
        values.setdefault(option.name, []).append(value)
    elif option.kind in ("map", "runtimes"):
        for key in value.keys() & values.get(option.name, {}).keys() if option.kind == "runtimes" else ():
            raise UsageError(f"runtime {key!r} is given twice with --{option.flag}")
        values.setdefault(option.name, {}).update(value)
    else:
        values[option.name] = value


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("1", "t", "true"):
        return True
    if lowered in ("0", "f", "false"):
        return False
    raise ValueError


def _number(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text):
        raise ValueError
    return int(text)


def _pair(text: str) -> dict[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError
    return {key: value}


def _runtime(text: str) -> dict[str, tuple[str, ...]]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise ValueError
    return {name: (path,)}


def _pool(text: str) -> tuple[str, int]:
    """`base=10.0.0.0/8,size=24`."""
    found = re.fullmatch(r"base=([^,=]+),size=(\d{1,2})", text)
    if found is None:
        raise ValueError
    return found[1], int(found[2])


_CONVERT: dict[str, Callable[[str], Any]] = {
    "text": str, "number": _number, "bool": _boolean, "size": parse_size, "list": str, "map": _pair,
    "runtimes": _runtime, "pools": _pool,
}  # fmt: skip
_WANT = {
    "text": "a text", "number": "a number", "bool": "true or false", "size": "a size such as 64m",
    "list": "a text", "map": "key=value",
    "runtimes": "NAME=PATH", "pools": "base=CIDR,size=BITS",
}  # fmt: skip


def read_file(path: Path, required: bool) -> Values:
    """The values in a `daemon.json`, by option name.

    Args:
        required: whether a missing file is an error.

    Raises:
        InvalidParameter: it is missing, not JSON, or has a key or a value that cannot be.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        if required:
            raise InvalidParameter(f"{path}: no such configuration file") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"{path}: cannot be read: {error}") from None
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidParameter(f"{path}: invalid JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidParameter(f"{path}: expected an object of options")
    values: Values = {}
    unknown = []
    for key, value in found.items():
        if key == "proxies":
            values.update(_proxies(value, path))
        elif key in BY_KEY and key not in PROXIES:
            values[key] = _from_json(BY_KEY[key], value, path)
        elif key in NOT_OFFERED:
            raise InvalidParameter(f"{path}: {key!r} is not offered by this version of sampand")
        else:
            unknown.append(key)
    if unknown:
        raise InvalidParameter(
            f"{path}: the following directives don't match any configuration option: {', '.join(unknown)}"
        )
    return values


def _proxies(value: Any, path: Path) -> Values:
    """The object `proxies`, whose members have flags of the same names."""
    if not isinstance(value, dict):
        raise InvalidParameter(f'{path}: proxies: expected an object such as {{"http-proxy": "http://…"}}')
    for key in value:
        if key not in PROXIES:
            raise InvalidParameter(f"{path}: proxies: {key!r} is none of {', '.join(PROXIES)}")
    return {key: _from_json(BY_FLAG[key], text, path) for key, text in value.items()}


def _from_json(option: Option, value: Any, path: Path) -> Any:
    def wrong(wanted: str) -> InvalidParameter:
        return InvalidParameter(f"{path}: {option.name}: expected {wanted}")

    if option.name == "default-ulimits":
        if not isinstance(value, dict):
            raise wrong('an object such as {"nofile": {"Soft": 1024, "Hard": 2048}}')
        limits = []
        for name, limit in value.items():
            if not isinstance(limit, dict) or not all(type(limit.get(k)) is int for k in ("Soft", "Hard")):
                raise wrong(f"numbers Soft and Hard in {name!r}")
            limits.append(f"{name}={limit['Soft']}:{limit['Hard']}")
        return limits
    if option.kind == "runtimes":
        return _runtimes(value, wrong)
    if option.kind == "pools":
        return _pools(value, wrong)
    if option.kind == "size":
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        try:
            return parse_size(value)
        except (ValueError, AttributeError):
            raise wrong(_WANT["size"]) from None
    checks: dict[str, tuple[Callable[[Any], bool], str]] = {
        "text": (lambda v: isinstance(v, str), "a text"),
        "number": (lambda v: type(v) is int and v >= 0, "a number"),
        "bool": (lambda v: isinstance(v, bool), "true or false"),
        "list": (lambda v: isinstance(v, list) and all(isinstance(i, str) for i in v), "a list of texts"),
        "map": (
            lambda v: isinstance(v, dict) and all(isinstance(i, str) for i in v.values()),
            "an object of texts",
        ),
    }
    good, wanted = checks[option.kind]
    if not good(value):
        raise wrong(wanted)
    return value


def _runtimes(value: Any, wrong: Callable[[str], InvalidParameter]) -> dict[str, tuple[str, ...]]:
    """`{"name": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}}`, as the words that start one."""
    if not isinstance(value, dict):
        raise wrong('an object such as {"crun": {"path": "/usr/bin/crun"}}')
    runtimes = {}
    for name, given in value.items():
        if not isinstance(given, dict) or not isinstance(given.get("path"), str) or not given["path"]:
            raise wrong(f"a path for {name!r} (shims, named by runtimeType, are not offered)")
        arguments = given.get("runtimeArgs") or []
        if not isinstance(arguments, list) or not all(isinstance(word, str) for word in arguments):
            raise wrong(f"a list of texts as runtimeArgs of {name!r}")
        if unknown := given.keys() - {"path", "runtimeArgs"}:
            raise wrong(f"path and runtimeArgs for {name!r}, not {', '.join(sorted(unknown))}")
        runtimes[name] = (given["path"], *arguments)
    return runtimes


def _pools(value: Any, wrong: Callable[[str], InvalidParameter]) -> list[tuple[str, int]]:
    """`[{"base": "10.0.0.0/8", "size": 24}]`."""
    example = 'a list such as [{"base": "10.0.0.0/8", "size": 24}]'
    if not isinstance(value, list):
        raise wrong(example)
    pools = []
    for one in value:
        if not isinstance(one, dict) or one.keys() != {"base", "size"}:
            raise wrong(example)
        if not isinstance(one["base"], str) or type(one["size"]) is not int:
            raise wrong(example)
        pools.append((one["base"], one["size"]))
    return pools


def merge(flags: Values, file: Values) -> Values:
    """Flags and file together.

    Raises:
        InvalidParameter: an option is in both, as dockerd reports it.
    """
    if "runtimes" in flags and "runtimes" in file:  # which dockerd alone of all lets come from both
        file = {**file, "runtimes": {**file["runtimes"], **flags["runtimes"]}}
        flags = {name: value for name, value in flags.items() if name != "runtimes"}
    both = [
        f"{name}: (from flag: {_shown(flags[name])}, from file: {_shown(file[name])})"
        for name in file
        if name in flags
    ]
    if both:
        raise InvalidParameter(
            "the following directives are specified both as a flag and in the configuration file: "
            + ", ".join(both)
        )
    return {**file, **flags}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{' '.join(map(str, value))}]"
    return str(value)


def help_text() -> str:
    """What `sampand --help` prints."""
    lines = ["Usage: sampand [OPTIONS]", "", "The daemon of the Sampan container engine.", "", "Options:"]
    for option in TABLE:
        short = f"-{option.short}," if option.short else "   "
        left = f"  {short} --{option.flag} {option.placeholder}".rstrip()
        lines.append(f"{left:<42} {option.help}")
    return "\n".join(lines)
