"""Where the values of arguments and flags come from: the daemon's objects, and words that are always there.

The daemon is asked as a command would ask it, but never started for it.
"""

from __future__ import annotations

import os

from sampan.cli.completing.answers import FILES, NO_FILES, NO_SPACE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.app import App
    from sampan.cli.flags import Flag

    Values = list[tuple[str, str]]

_UP = ("running", "paused", "restarting")
_CAPABILITIES = """\
ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD
NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN
SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME
SYS_TTY_CONFIG WAKE_ALARM"""
_SIGNALS = (
    "HUP INT QUIT TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM CHLD CONT STOP TSTP TTIN TTOU WINCH"
)
_PLATFORMS = (
    "linux/amd64 linux/arm64 linux/arm/v7 linux/arm/v6 linux/386 linux/ppc64le linux/riscv64 linux/s390x"
)
_ULIMITS = (
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
)
_FORMATS = "json table"


# --- the daemon's objects ---


def containers(app: App, states: tuple[str, ...] = ()) -> Values:
    """Names of containers, of all or of those in some states."""
    _never_start(app)
    listed = app.client.call("GET", "/containers/json", {"all": not states or states != _UP})
    return [
        (name[1:], one.get("Image", ""))
        for one in listed
        if not states or one.get("State") in states
        for name in one.get("Names") or ()
        if "/" not in name[1:]
    ]


def images(app: App) -> Values:
    """Names of images with their tags."""
    _never_start(app)
    listed = app.client.call("GET", "/images/json")
    return [(tag, "") for one in listed for tag in one.get("RepoTags") or () if not tag.startswith("<none>")]


def networks(app: App) -> Values:
    """Names of networks."""
    _never_start(app)
    return [(one["Name"], one.get("Driver", "")) for one in app.client.call("GET", "/networks")]


def volumes(app: App) -> Values:
    """Names of volumes."""
    _never_start(app)
    listed = app.client.call("GET", "/volumes").get("Volumes") or ()
    return [(one["Name"], one.get("Driver", "")) for one in listed]


def contexts(app: App) -> Values:
    """Names of contexts."""
    from sampan.cli.contexts.store import everyone

    return [("default", ""), *((one.name, one.description) for one in everyone())]


def _never_start(app: App) -> None:
    app.client.host.automatic = False


def _plugins(app: App, kind: str) -> Values:
    _never_start(app)
    return [(name, "") for name in (app.client.call("GET", "/info").get("Plugins") or {}).get(kind) or ()]


# --- arguments ---


def of_argument(app: App, path: str, before: list[str], last: str) -> tuple[Values, int]:
    """What the next argument of a command could be."""
    make = _ARGUMENTS.get(path)
    if make is not None:
        return make(app), NO_FILES
    if path in _STATES:
        if path in _ONE_NAME and before:
            return [], NO_FILES
        return containers(app, _STATES[path]), NO_FILES
    if path in ("run", "create", "commit", "tag", "history"):
        return _first_is(app, path, before)
    if path == "cp":
        return ([(f"{name}:", about) for name, about in containers(app)] if ":" not in last else []), FILES
    if path.startswith("network policy ") and not before:
        return [*containers(app), *networks(app)], NO_FILES
    if path in ("network connect", "network disconnect"):
        return (containers(app) if before else networks(app)), NO_FILES
    if path == "context import":
        return [], FILES if before else NO_FILES
    if path == "context export":
        return ([], FILES) if before else (contexts(app), NO_FILES)
    return [], FILES if path in ("import", "load", "build") else NO_FILES


def _first_is(app: App, path: str, before: list[str]) -> tuple[Values, int]:
    if path in ("run", "create"):  # behind the image stands the container's own command
        return (images(app), NO_FILES) if not before else ([], FILES)
    if path == "commit":
        return (images(app) if before else containers(app)), NO_FILES
    return images(app), NO_FILES


def _anything(app: App) -> Values:
    return [*containers(app), *images(app), *networks(app), *volumes(app)]


_ARGUMENTS: dict[str, Callable[[App], Values]] = {
    "inspect": _anything,
    "images": images,
    "rmi": images,
    "save": images,
    "push": images,
    "image inspect": images,
    "network inspect": networks,
    "network rm": networks,
    "volume inspect": volumes,
    "volume rm": volumes,
    "volume update": volumes,
    "context inspect": contexts,
    "context rm": contexts,
    "context update": contexts,
    "context use": contexts,
}
_STATES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("container inspect", "diff", "export", "logs", "rename", "restart", "rm", "update"), ()),
    **dict.fromkeys(("attach", "exec"), ("running",)),
    **dict.fromkeys(("kill", "port", "stats", "stop", "top", "wait"), _UP),
    "pause": ("running",),
    "start": ("created", "exited", "dead"),
    "unpause": ("paused",),
}
_ONE_NAME = ("attach", "diff", "exec", "export", "logs", "port", "rename", "top")


# --- values of flags ---


def of_flag(app: App, path: str, flag: Flag, last: str) -> tuple[Values, int]:
    """What the value of a flag could be; `path` is "" for the global ones."""
    name = flag.name
    if path == "" and name == "context":
        return contexts(app), NO_FILES
    words = _WORDS.get(f"{path} --{name}") or _WORDS.get(f"--{name}")
    if words is not None:
        return [(word, "") for word in words.split()], NO_FILES
    if name in _LEADING:
        return [(word, "") for word in _LEADING[name].split()], NO_SPACE | NO_FILES
    if name == "filter":
        return [(f"{word}=", "") for word in _FILTERS.get(path, "").split()], NO_SPACE | NO_FILES
    if name in ("network", "net"):
        return networks(app), NO_FILES
    if name == "volumes-from":
        return containers(app), NO_FILES
    if name == "link":
        return [(f"{one}:", about) for one, about in containers(app)], NO_SPACE | NO_FILES
    if name in ("ipc", "pid") and last.startswith("container:"):
        return [(f"container:{one}", about) for one, about in containers(app)], NO_FILES
    if name in ("ipc", "pid"):
        more = " private shareable none" if name == "ipc" else ""
        return [(word, "") for word in f"host container:{more}".split()], NO_SPACE | NO_FILES
    if name == "env":
        return [(one, "") for one in sorted(os.environ)], NO_FILES
    if name == "log-driver":
        return _plugins(app, "Log"), NO_FILES
    if name == "volume-driver" or (path == "volume create" and name == "driver"):
        return _plugins(app, "Volume"), NO_FILES
    if path == "network create" and name == "driver":
        return _plugins(app, "Network"), NO_FILES
    if name == "volume":
        return (
            ([(f"{one}:", about) for one, about in volumes(app)], NO_SPACE)
            if last[:1] not in "/."
            else ([], 0)
        )
    return [], FILES if name in _FILE_FLAGS else NO_FILES


_WORDS = {
    "--attach": "stdin stdout stderr",
    "--cap-add": _CAPABILITIES,
    "--cap-drop": _CAPABILITIES,
    "--cgroupns": "host private",
    "--compression": "gzip zstd",
    "--format": _FORMATS,
    "--gpus": "all",
    "--health-on-failure": "none kill restart stop",
    "--log-level": "debug info warn error fatal",
    "--platform": _PLATFORMS,
    "--pull": "always missing never",
    "--restart": "no always on-failure unless-stopped",
    "--signal": _SIGNALS,
    "--stop-signal": _SIGNALS,
    "--type": "container image network volume",
    "--userns": "host",
    "--uts": "host",
}
_LEADING = {
    "mount": "type=bind, type=tmpfs, type=volume,",
    "security-opt": "apparmor= label= no-new-privileges seccomp= systempaths=unconfined",
    "storage-opt": "size=",
    "ulimit": " ".join(f"{name}=" for name in _ULIMITS.split()),
    "docker": "host= from= ca= cert= key= skip-tls-verify=",
}
_PRUNED = "label label! until"
_FILTERS = {
    "ps": "ancestor before exited expose health id is-task label name network publish since status volume",
    "images": "before dangling label reference since until",
    "events": "container daemon event image label network scope type volume",
    "network ls": "dangling driver id label name scope type",
    "volume ls": "dangling driver label name",
    "search": "is-official stars",
    **dict.fromkeys(("container prune", "image prune", "network prune", "system prune"), _PRUNED),
    "volume prune": "all label label!",
    "builder prune": "until",
}
_FILE_FLAGS = frozenset(
    """add-host-file cidfile config device env-file file iidfile input label-file output password-file
    tlscacert tlscert tlskey""".split()
)
