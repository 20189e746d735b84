"""`sampan-runtime`: the command line of OCI runtimes, for engines other than ours (podman, containerd).

The verbs that start a process run in a sealed interpreter, like the launcher: the command executes itself
again.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import sampan
from sampan.errors import InvalidParameter, SampanError
from sampan.linux import kernel
from sampan.runtime import sealed
from sampan.runtime.oci_state import OCI_VERSION, Store

_BOOTSTRAP = (
    "import sys; sys.path.append({source!r}); from sampan.runtime.command import again; again({fds!r})"
)
_STARTING = ("create", "run", "exec")


def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    options = _parser().parse_args(arguments)
    if options.verb in _STARTING:
        _seal(arguments)
    sys.exit(_run(options))


def again(fds: Sequence[int]) -> NoReturn:
    """Entry point in the sealed interpreter; `fds` were only needed to start it."""
    for fd in fds:
        os.close(fd)
    sys.exit(_run(_parser().parse_args(sys.argv[1:])))


def _seal(arguments: list[str]) -> NoReturn:
    interpreter = sealed.interpreter()
    for fd in interpreter.fds:
        os.set_inheritable(fd, True)
    code = _BOOTSTRAP.format(source=str(Path(sampan.__file__).resolve().parent.parent), fds=interpreter.fds)
    os.execve(
        interpreter.executable,
        [interpreter.argv0, "-I", "-S", "-X", "utf8", "-c", code, *arguments],
        {**os.environ, **interpreter.environment},
    )


def _run(options: argparse.Namespace) -> int:
    try:
        kernel.check()
        return _VERBS[options.verb](options)
    except SampanError as error:
        _complain(options, error.message)
        return getattr(error, "exit_code", 1)
    except OSError as error:
        _complain(options, str(error))
        return 1


def _complain(options: argparse.Namespace, text: str) -> None:
    print(f"sampan-runtime: {text}", file=sys.stderr)
    if options.log:
        with open(options.log, "a", encoding="utf-8") as log:
            log.write(json.dumps({"level": "error", "msg": text}) + "\n")


def _create(options: argparse.Namespace) -> int:
    from sampan.runtime import oci_verbs

    oci_verbs.create(
        Store(options.root), options.id, options.bundle, options.console_socket, options.pid_file
    )
    return 0


def _run_container(options: argparse.Namespace) -> int:
    from sampan.runtime import oci_verbs

    store = Store(options.root)
    started = oci_verbs.create(
        store, options.id, options.bundle, options.console_socket, options.pid_file, not options.detach
    )
    oci_verbs.start(store, options.id)
    if options.detach:
        return 0
    code = oci_verbs.wait(started)
    oci_verbs.delete(store, options.id, force=True)
    return code


def _start(options: argparse.Namespace) -> int:
    from sampan.runtime import oci_verbs

    oci_verbs.start(Store(options.root), options.id)
    return 0


def _state(options: argparse.Namespace) -> int:
    store = Store(options.root)
    print(json.dumps(store.state(store.load(options.id)), indent=2))
    return 0


def _kill(options: argparse.Namespace) -> int:
    from sampan.runtime import oci_verbs

    name = options.signal.upper().removeprefix("SIG")
    if name.isdigit():
        number = int(name)
    elif hasattr(signal, f"SIG{name}"):
        number = int(getattr(signal, f"SIG{name}"))
    else:
        raise InvalidParameter(f"unknown signal {options.signal!r}")
    oci_verbs.kill(Store(options.root), options.id, number, options.all)
    return 0


def _delete(options: argparse.Namespace) -> int:
    from sampan.errors import NotFound
    from sampan.runtime import oci_verbs

    try:
        oci_verbs.delete(Store(options.root), options.id, options.force)
    except NotFound:
        if not options.force:
            raise
    return 0


def _list(options: argparse.Namespace) -> int:
    store = Store(options.root)
    states = [{**store.state(item), "created": item.created} for item in store.all()]
    if options.format == "json":
        print(json.dumps(states))
        return 0
    if not options.quiet:
        print(f"{'ID':<20} {'PID':<8} {'STATUS':<10} BUNDLE")
    for state in states:
        if options.quiet:
            print(state["id"])
        else:
            print(f"{state['id']:<20} {state['pid']:<8} {state['status']:<10} {state['bundle']}")
    return 0


def _exec(options: argparse.Namespace) -> int:
    from sampan.runtime import bundle, oci_verbs

    store = Store(options.root)
    if options.process:
        wanted = oci_verbs.read_process(options.process)
    else:
        if not options.args:
            raise InvalidParameter("exec needs a program, or --process")
        config = bundle.load(store.load(options.id).bundle)
        wanted = {**(config.get("process") or {}), "args": options.args, "terminal": options.tty}
        wanted["env"] = [*wanted.get("env", []), *options.env]
        if options.cwd:
            wanted["cwd"] = options.cwd
        if options.user:
            wanted["user"] = _user(options.user)
    started = oci_verbs.execute(
        store, options.id, wanted, options.console_socket, options.pid_file, not options.detach
    )
    return 0 if options.detach else oci_verbs.wait(started)


def _user(text: str) -> dict[str, int]:
    uid, _, gid = text.partition(":")
    if not uid.isdigit() or not (gid or "0").isdigit():
        raise InvalidParameter(f"--user wants UID[:GID], not {text!r}")
    return {"uid": int(uid), "gid": int(gid or 0)}


def _features(_: argparse.Namespace) -> int:
    from sampan.linux import apparmor, capabilities, cgroups, mounts, namespaces

    version = cgroups.features().version
    value: dict[str, Any] = {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mounts.option_names(),
        "linux": {
            "namespaces": sorted(set(namespaces.KINDS) - {"user"}),
            "capabilities": list(capabilities.ALL[: capabilities.last_cap() + 1]),
            "cgroup": {"v1": version == 1, "v2": version == 2, "systemd": False, "systemdUser": False},
            "seccomp": {"enabled": True},
            "apparmor": {"enabled": apparmor.enabled()},
            "selinux": {"enabled": False},
            "mountExtensions": {"idmap": {"enabled": True}},
        },
        "annotations": {"org.sampan.version": sampan.__version__},
    }
    print(json.dumps(value, indent=2))
    return 0


def _spec(options: argparse.Namespace) -> int:
    from sampan.linux import capabilities

    path = Path(options.bundle, "config.json")
    if path.exists():
        raise InvalidParameter(f"{path} already exists; remove it first")
    given = list(capabilities.DEFAULT)
    value = {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": {"bounding": given, "effective": given, "permitted": given},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "sampan",
        "mounts": [
            {"destination": place, "type": kind, "source": kind, "options": choices}
            for place, kind, choices in (
                ("/proc", "proc", ["nosuid", "noexec", "nodev"]),
                ("/dev", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
                ("/dev/pts", "devpts", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
                ("/dev/shm", "tmpfs", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
                ("/dev/mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
                ("/sys", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
                ("/sys/fs/cgroup", "cgroup", ["nosuid", "noexec", "nodev", "ro"]),
            )
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }  # fmt: skip
    path.write_text(json.dumps(value, indent=4) + "\n")
    return 0


_VERBS = {
    "create": _create,
    "run": _run_container,
    "start": _start,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
    "list": _list,
    "exec": _exec,
    "features": _features,
    "spec": _spec,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sampan-runtime", description="Run OCI bundles.")
    version = f"sampan-runtime version {sampan.__version__}\nspec: {OCI_VERSION}"
    parser.add_argument("--version", "-v", action="version", version=version)
    parser.add_argument("--root", type=Path, default=Path("/run/sampan-runtime"), help="where state is kept")
    parser.add_argument("--log", default="", help="append errors to this file, as JSON lines")
    parser.add_argument("--log-format", choices=("json",), default="json")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, text: str, identified: bool = True) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        if identified:
            added.add_argument("id", help="the container's id")
        return added

    def starting(added: argparse.ArgumentParser) -> None:
        added.add_argument("--console-socket", default="", help="send the terminal's master to this socket")
        added.add_argument("--pid-file", default="", help="write the process's pid to this file")

    for name, text in (
        ("create", "make a container; its program waits for start"),
        ("run", "create, start, wait and delete"),
    ):
        added = verb(name, text)
        added.add_argument("--bundle", "-b", default=".", help="the directory with config.json")
        starting(added)
        if name == "run":
            added.add_argument("--detach", "-d", action="store_true")
    verb("start", "let a created container's program run")
    verb("state", "print a container's state")
    added = verb("kill", "signal a container")
    added.add_argument("signal", nargs="?", default="TERM")
    added.add_argument("--all", "-a", action="store_true", help="every process, not the first alone")
    added = verb("delete", "remove a stopped container")
    added.add_argument("--force", "-f", action="store_true", help="kill it first")
    added = verb("list", "list containers", identified=False)
    added.add_argument("--format", "-f", choices=("table", "json"), default="table")
    added.add_argument("--quiet", "-q", action="store_true")
    added = verb("exec", "run one more process in a container")
    added.add_argument("--process", "-p", default="", help="file with an OCI process object")
    added.add_argument("--detach", "-d", action="store_true")
    added.add_argument("--tty", "-t", action="store_true")
    added.add_argument("--cwd", default="")
    added.add_argument("--env", "-e", action="append", default=[])
    added.add_argument("--user", "-u", default="", help="UID[:GID]")
    starting(added)
    added.add_argument("args", nargs=argparse.REMAINDER)
    verb("features", "print what this runtime can do", identified=False)
    added = verb("spec", "write a config.json to begin with", identified=False)
    added.add_argument("--bundle", "-b", default=".")
    return parser
