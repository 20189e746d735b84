"""Writes docs/compatibility.md: each endpoint, field and flag of Docker's, and what Sampan does with it.

Endpoints are looked up in the API's own router, fields in the table that tests send to a daemon
(`tests/support/fields.py`), flags in our own parser and the request that is made of them.
`tests/unit/api/test_api_compatibility.py` fails while the file is not what this program writes:

    .venv/bin/python tools/compatibility.py
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from sampan.api.app import router  # noqa: E402  (the paths come first)
from sampan.api.versions import CHANGES  # noqa: E402
from sampan.cli.app import find  # noqa: E402
from sampan.cli.commands.exec import exec_body  # noqa: E402
from sampan.cli.commands.update import update_body  # noqa: E402
from sampan.cli.containers.config import create_body  # noqa: E402
from sampan.cli.failures import CommandError  # noqa: E402
from sampan.cli.flags import Flag, parse  # noqa: E402
from sampan.errors import SampanError  # noqa: E402
from support.contract import operations  # noqa: E402
from support.fields import FIELDS, Cgroup, Elsewhere, Inside, Outcome, Passed, Refused, Shown, Warned  # noqa: E402

DOCUMENT = ROOT / "docs" / "compatibility.md"
CLI = ROOT / "tests" / "specs" / "docker-cli-v28.2.json"

HEAD = """\
# Compatibility

What Docker's clients may ask for, and what comes of it. `tools/compatibility.py` writes this file from the
router, the command line's parser and the table of fields that the tests send to a daemon; a test fails while
it is not up to date. `./test` also holds the answers of its daemons against Docker's description of the API:
statuses, members and their types (`tests/support/contract.py`), and says at its end which endpoints nobody
asked.

Nothing is accepted and ignored. What is not offered is refused by its name.

## Versions of the API

1.24 to 1.51 are spoken, as a prefix of the path (`/v1.41/…`); without one, 1.51. Older and newer prefixes get
400 in Docker's words. Docker 29 no longer answers clients before 1.44; Sampan does, so docker 20.10 and old
versions of docker-py keep working. A `HostConfig` in the body of `POST /containers/{id}/start` is refused, as
Docker refuses it since 1.24. What changed later is told as the client's version knows it:
"""


def outcome(what: Outcome) -> str:
    """A cell."""
    if isinstance(what, Refused):
        return f"{what.status}: `{what.words}`"
    if isinstance(what, Warned):
        return f"dropped with the warning `{what.words}`"
    if isinstance(what, Passed):
        return f"let pass: {what.why}"
    if isinstance(what, Shown):
        return f"kept and shown{': ' + what.why if what.why else ''}"
    if isinstance(what, Cgroup) and not what.v2[0]:
        return "honoured on cgroup v1; the kernel has no such limit on v2"
    assert isinstance(what, (Inside, Cgroup, Elsewhere))
    return "honoured"


def endpoints() -> Iterator[tuple[str, str]]:
    """Each of Docker's endpoints, and what we do."""
    ours = router()
    for one in sorted(operations(), key=lambda one: (one.path, one.method)):
        found = ours.match(one.method, re.sub(r"\{\w+\}", "x", one.path))
        if found is None:
            yield one.name, "404: not offered yet"
            continue
        if one.path.startswith("/plugins/{name}"):
            yield one.name, '404: `plugin "…" not found`, as there are none'
            continue
        try:
            asyncio.run(found[0](None))  # type: ignore[arg-type]
        except SampanError as error:  # refused, whatever was asked
            yield one.name, f"{error.status}: `{error.message}`"
        except AttributeError:  # it looks at the request
            yield one.name, "answered"
        else:
            yield one.name, "answered"


OUR_ENDPOINTS = (
    ("GET /containers/{id}/egress", "the egress policy of a container, and what is open to it by name"),
    (
        "PUT /containers/{id}/egress",
        '`{"Policy": …}`: another one, also while it runs; `none` for none of its own',
    ),
    ("GET /containers/{id}/egress/log", "what was refused to it, as lines of JSON; `?follow=1` goes on"),
    ("GET /networks/{id}/egress", "the policy of containers in a network that have none of their own"),
    ("PUT /networks/{id}/egress", "as that of containers"),
    ("GET /networks/{id}/egress/log", "as that of containers, of all that are in it"),
)
OURS = (
    ("HealthcheckOnFailureAction", "what to do with a container that has turned unhealthy, as podman's"),
    (
        "HostConfig.Mounts[].IDMap",
        "`match-user`, `UID:GID` or `UID`: as whom the container's user reads and writes this bind or volume "
        "(`--mount …,idmap=…`); see [volumes.md](volumes.md)",
    ),
    (
        "HostConfig.Mounts[].Chown",
        "give the files of this bind or volume to the container's user, as podman's option U (`--mount …,U`)",
    ),
    (
        "HostConfig.Egress",
        "where the container may connect to: `deny`, or `allow:` and a list; the label `sampan.egress` says "
        "the same, and for a network the driver option of this name; see [egress.md](egress.md)",
    ),
    (
        "HostConfig.Binds[]",
        "the words `idmap`, `idmap=UID`, `idmap=UID-GID` and `U` in the mode, for clients that check "
        "the keys of `--mount`: docker's passes modes on as they are",
    ),
)

# A word for each type of flag, and for those that want a particular one.
WORDS = {
    "bool": "true", "int": "7", "uint": "7", "uint16": "70", "int64": "7", "decimal": "1.5", "bytes": "64m",
    "duration": "7s", "string": "host", "list": "a", "map": "a=b", "ulimit": "nofile=1:2", "mount":
    "type=tmpfs,target=/m", "network": "none", "gpu-request": "all",
}  # fmt: skip
FLAG_WORDS = {
    "blkio-weight-device": "/dev/sda:70", "device": "/dev/null", "device-cgroup-rule": "c 1:3 r",
    "device-read-bps": "/dev/sda:1m", "device-write-bps": "/dev/sda:1m", "device-read-iops": "/dev/sda:7",
    "device-write-iops": "/dev/sda:7", "expose": "80", "ip": "192.0.2.7", "ip6": "2001:db8::7",
    "link-local-ip": "169.254.0.7", "log-driver": "none", "log-opt": "max-size=1m",
    "mac-address": "02:42:00:00:00:07", "publish": "80:80", "restart": "always", "tmpfs": "/t",
    "dns": "192.0.2.53", "add-host": "a:192.0.2.7", "security-opt": "no-new-privileges",
    "storage-opt": "size=1g",
    "volume": "/a:/b", "workdir": "/w", "attach": "stderr",
    "link": "a:b", "sysctl": "net.ipv4.ip_default_ttl=77", "annotation": "a=b",
    "env": "A=b", "label": "a=b", "shm-size": "1m",
    "hostname": "ahoy", "no-healthcheck": "true",
}  # fmt: skip

# What the client does with a flag itself, without a word in the body.
CLIENT = {
    "name": "honoured: `?name=`",
    "platform": "honoured: `?platform=`",
    "pull": "honoured by the client",
    "quiet": "honoured by the client",
    "detach-keys": "honoured by the client",
    "sig-proxy": "honoured by the client",
    "help": "honoured by the client",
    "env-file": "honoured: the file's lines become `Env`",
    "label-file": "honoured: the file's lines become `Labels`",
    "disable-content-trust": "true is taken; false is refused: there is no content trust (Notary)",
    "use-api-socket": "honoured: `HostConfig.Mounts`, `Env`, and a file copied in before the start",
}
UPDATE_WORDS = {"restart": "always", "cpuset-cpus": "0", "cpuset-mems": "0"}
EXEC_WORDS = {"env": "A=b", "detach-keys": "ctrl-x"}
BESIDE = {"health-": ["--health-cmd", "true"], "log-opt": ["--log-driver", "json-file"]}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The members of a body by their paths, as the table of fields spells them."""
    if isinstance(value, dict) and path in ("", "HostConfig", "NetworkingConfig", "Healthcheck"):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}".lstrip("."))
    elif path == "NetworkingConfig.EndpointsConfig":
        for endpoint in value.values():
            for key, item in (endpoint or {}).items():
                yield f"{path}.*.{key}", item
    else:
        yield path, value


def flags(command: str) -> Iterator[tuple[str, str]]:
    """Each flag of docker's `run` or `create`, and what we do."""
    recorded: dict[str, list[str]] = json.loads(CLI.read_text())[command]["flags"]
    found = find([command])[0]
    assert found is not None and found.flags is not None
    ours = {flag.name for flag in found.flags} | {"help"}
    known = {field.path: field.outcome for field in FIELDS}
    for name, (_, kind) in sorted(recorded.items()):
        if name not in ours:
            yield f"--{name}", "refused: unknown flag"
            continue
        if name in CLIENT:
            yield f"--{name}", CLIENT[name]
            continue
        beside = next((words for start, words in BESIDE.items() if name.startswith(start)), [])
        word = FLAG_WORDS.get(name, WORDS[kind])
        detached = name == "detach"
        try:
            values, _ = parse(found.flags, [*beside, f"--{name}={word}"], False)
            body = dict(leaves(create_body(values, "image", [], detached)))
        except (CommandError, ValueError) as error:
            yield f"--{name}", f"refused by the client: `{error}`"
            continue
        plain = dict(leaves(create_body(parse(found.flags, beside, False)[0], "image", [], False)))
        changed = [path for path, value in body.items() if plain.get(path) != value]
        yield f"--{name}", _of_members(changed, known)


def update_flags() -> Iterator[tuple[str, str]]:
    """Each flag of docker's `update`: its members are those of `create`, changed in the running container."""
    known = {field.path: field.outcome for field in FIELDS}
    for name, kind, ours in _recorded("update"):
        if name in ours:
            values = parse(list(ours.values()), [f"--{name}={UPDATE_WORDS.get(name, WORDS[kind])}"], False)[0]
            yield f"--{name}", _of_members([f"HostConfig.{member}" for member in update_body(values)], known)
        else:
            yield f"--{name}", "refused: unknown flag"


def exec_flags() -> Iterator[tuple[str, str]]:
    """Each flag of docker's `exec`."""
    for name, kind, ours in _recorded("exec"):
        if name not in ours:
            yield f"--{name}", "refused: unknown flag"
            continue
        if name == "env-file":
            yield f"--{name}", CLIENT[name]
            continue
        word = EXEC_WORDS.get(name, WORDS[kind])
        flags = list(ours.values())
        keys = word if name == "detach-keys" else ""
        body = exec_body(parse(flags, [f"--{name}={word}"], False)[0], ["true"], keys)
        plain = exec_body(parse(flags, [], False)[0], ["true"], "")
        changed = [member for member, value in body.items() if plain.get(member) != value]
        if not changed:
            raise LookupError(f"exec --{name} changes nothing")
        yield f"--{name}", ", ".join(f"`{member}`" for member in changed) + " honoured"
    yield "--timeout", "ours alone: `Timeout`; it and all that it started end after so long, exit code 124"


def _recorded(command: str) -> Iterator[tuple[str, str, dict[str, Flag]]]:
    """Docker's flags of a command: the name, the kind, and ours of that command."""
    recorded: dict[str, list[str]] = json.loads(CLI.read_text())[command]["flags"]
    found = find([command])[0]
    assert found is not None and found.flags is not None
    ours = {flag.name: flag for flag in found.flags}
    for name, (_, kind) in sorted(recorded.items()):
        if name != "help":
            yield name, kind, ours


def _of_members(paths: list[str], known: dict[str, Outcome]) -> str:
    if not paths:
        raise LookupError("a flag that changes nothing")
    said = []
    for path in paths:
        if path == "HostConfig.KernelMemory":
            path = "HostConfig.KernelMemoryTCP"  # the same, under an older name
        known_as = known.get(path)
        if known_as is None:
            raise LookupError(f"tests/support/fields.py has no line for {path}")
        short = path.replace("HostConfig.", "").replace("NetworkingConfig.EndpointsConfig.*.", "endpoint ")
        said.append(f"`{short}` {outcome(known_as)}")
    return "; ".join(dict.fromkeys(said))


def table(
    left: str, rows: Iterator[tuple[str, str]], *, quoted: bool = True, right: str = "what we do"
) -> str:
    """A table of two columns."""
    mark = "`" if quoted else ""
    lines = [f"| {left} | {right} |", "|---|---|"]
    lines += [f"| {mark}{name}{mark} | {cell.replace('|', chr(92) + '|')} |" for name, cell in rows]
    return "\n".join(lines) + "\n"


def render() -> str:
    """The whole document."""
    fields = ((field.path, outcome(field.outcome)) for field in FIELDS)
    changes = ((f"before {version}", what) for version, what in CHANGES)
    parts = [
        HEAD,
        table("version", changes, quoted=False, right="difference"),
        "## Endpoints\n",
        table("endpoint", endpoints()),
        "### Endpoints that Docker does not have\n",
        table("endpoint", iter(OUR_ENDPOINTS), right="what it does"),
        "## The body of `POST /containers/create`\n",
        "A member that is in no line here is refused: 400, `unknown field`. `KernelMemory` of clients before "
        "API 1.42 is treated as `KernelMemoryTCP`.\n",
        table("member", fields),
        "### What Docker does not have\n",
        table("member", iter(OURS), right="what it does"),
        "## Flags of `run` and `create`\n",
        "Where a flag becomes members of the body, these are named. How other commands\n"
        "differ from docker's is listed in `tests/unit/cli/test_cli_like_docker.py`.\n",
        table("flag", flags("run")),
        "## Flags of `update`\n",
        table("flag", update_flags()),
        "## Flags of `exec`\n",
        table("flag", exec_flags()),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    DOCUMENT.write_text(render())
