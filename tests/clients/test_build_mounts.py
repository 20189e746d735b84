"""`RUN --mount` and `--network`: caches, binds, memory, secrets; what of them is left, and how caches go."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.api import UnixConnection
from support.building import Built, build, context, tidied
from support.engine import Daemon, Engine
from support.machine import eventually

HEADER = "X-Sampan-Build-Secrets"


@pytest.fixture(autouse=True)
def tidy(engine: Engine, busybox: str) -> Iterator[None]:
    with tidied(engine):
        yield
    engine.api("POST", "/build/prune?all=1")


def worked(engine: Engine, body: bytes, headers: dict[str, str] | None = None, **query: str) -> Built:
    """A build that must work."""
    done = build(engine, body, headers, **query)
    assert not done.error, done.text + done.error
    return done


def secrets(**contents: bytes) -> dict[str, str]:
    """The header that brings secrets."""
    given = {name: base64.b64encode(content).decode() for name, content in contents.items()}
    return {HEADER: base64.urlsafe_b64encode(json.dumps(given).encode()).decode()}


def unwritten(engine: Engine, *, headers: dict[str, str], content: bytes, text: str = "") -> None:
    """That a secret is nowhere below the roots, in the log of a daemon that logs all, or in a text.

    Args:
        headers: in which it came: neither are they, or the secret as it stands in them.
        text: which else must not tell it.
    """
    forms = [content, base64.b64encode(content), headers[HEADER].encode()]
    logged = engine.log_text()
    assert "POST /build" in logged  # it tells of requests
    for form in forms:
        assert form.decode() not in logged + text
    for root in (engine.data_root, engine.exec_root):
        for folder, _, names in os.walk(root):
            for name in names:
                file = Path(folder, name)
                if file.is_file() and not file.is_symlink() and file.parent.name != "netns":
                    written = file.read_bytes()
                    assert not any(form in written for form in forms), file


def last_layer(engine: Engine, image: str) -> list[str]:
    """The names in an image's topmost layer."""
    saved = engine.api("GET", f"/images/{image}/get").body
    with tarfile.open(fileobj=io.BytesIO(saved)) as archive:
        listed = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        layer = archive.extractfile(listed[0]["Layers"][-1])
        assert layer is not None
        with tarfile.open(fileobj=io.BytesIO(layer.read())) as files:
            return sorted(name.rstrip("/") for name in files.getnames())


def caches(engine: Engine) -> list[dict[str, object]]:
    """The build caches that `system df` knows."""
    found: list[dict[str, object]] = engine.api.get("/system/df?type=build-cache")["BuildCache"]
    return found


def test_binds_and_memory_leave_no_trace(engine: Engine, busybox: str) -> None:
    binds = "--mount=target=/src --mount=type=bind,from=tools,src=/t/link,dst=new/deep/er"
    dockerfile = f"""FROM {busybox} AS tools
RUN mkdir -p /t/sub && echo tool > /t/sub/f && ln -s /t/sub /t/link
FROM {busybox}
WORKDIR /w
ARG KIND=tmpfs
RUN {binds} --mount=source=a/x,target=/one --mount=type=$KIND,size=1m,target=/mem \\
    cat /src/a/x new/deep/er/f /one; touch /src/no /one 2>&1 | wc -l; \\
    df -k /mem | tail -1 | tr -s ' ' | cut -d ' ' -f 2; echo kept > /kept; touch new/mine
RUN --mount=from=tools,source=/t,target=/both,rw --mount=target=/ctx,rw=true --mount=src=a/x,target=/f,rw \\
    echo more > /both/new; echo 2 > /f; rm /ctx/a/x; ls /both /ctx; cat /f
RUN --mount=target=. ls -d a
RUN --network=none ls /sys/class/net
"""
    done = worked(engine, context(dockerfile, a__x="x\n"), t="mounts")
    _, binds, writable, workdir, network = done.outputs()
    assert binds == ["x", "tool", "x", "2", "1024"]
    assert writable == ["/both:", "link", "new", "sub", "", "/ctx:", "Dockerfile", "a", "2"]
    assert (workdir, network) == (["a"], ["lo"])
    history = [one["CreatedBy"] for one in engine.api.get("/images/mounts/history")]
    assert history[0].startswith("|1 KIND=tmpfs --network=none /bin/sh -c ls")
    layers = engine.api.get("/images/mounts/json")["RootFS"]["Layers"]
    assert len(layers) == 3  # busybox, WORKDIR, and what one of the commands has kept
    assert last_layer(engine, "mounts") == ["kept", "w", "w/new", "w/new/mine"]
    # of a bind its files count, and no others
    again = worked(engine, context(dockerfile, a__x="x\n"))
    assert len(again.outputs()) == 0
    other = worked(engine, context(dockerfile, a__x="y\n"))
    assert len(other.outputs()) == 4 and other.outputs()[0][0] == "y"


def test_caches_outlive_their_builds(engine: Engine, busybox: str) -> None:
    def run(*commands: str) -> list[list[str]]:
        steps = "\n".join(f"RUN {one}" for one in commands)
        text = f"FROM {busybox} AS base\nRUN mkdir /s && echo seed > /s/f\nFROM {busybox}\n{steps}"
        outputs = worked(engine, context(text), nocache="1").outputs()
        return outputs[-len(commands) :]

    mount = "--mount=type=cache,target=/c"
    assert run(f"{mount} echo 1 > /c/a", f"{mount} cat /c/a", "ls / | grep -c '^c$' || true") == [
        [],
        ["1"],
        ["0"],
    ]
    # the id is what names a cache, and no path: as long as it is said, wherever it is mounted
    named = "--mount=type=cache,id=../../etc/x,target"
    assert run(f"{named}=/d ls -A /d; echo 2 > /d/b", f"{named}=/e cat /e/b") == [[], ["2"]]
    # owner and mode of a new one; a base; read-only
    owned = "--mount=type=cache,target=/c,uid=7,gid=8,mode=0711"
    based = "--mount=type=cache,target=/c,from=base,source=/s"
    found = run(
        f"{owned} stat -c '%u %a' /c; ls -A /c",
        f"{based} cat /c/f; echo on >> /c/f",
        f"{based},ro cat /c/f; rm /c/f 2> /dev/null || echo refused",
    )
    assert found == [["7 711"], ["seed"], ["seed", "on", "refused"]]
    listed = caches(engine)
    assert len(listed) == 4 and not any(one["InUse"] for one in listed)
    assert {one["Type"] for one in listed} == {"exec.cachemount"}
    by_text = {str(one["Description"]): one for one in listed}
    assert 'cached mount /d with id "../../etc/x"' in by_text
    assert all(one["UsageCount"] in (1, 2) for one in listed)


def test_caches_are_pruned(engine: Engine, busybox: str) -> None:
    mount = "--mount=type=cache,target=/c,id"
    steps = "\n".join(
        f"RUN {mount}={name} head -c {size} /dev/zero > /c/f"
        for name, size in (("a", 4000), ("b", 5000), ("c", 6000))
    )
    worked(engine, context(f"FROM {busybox}\n{steps}"))
    row = [line for line in engine.sampan("system", "df").lines if line.startswith("Build Cache")]
    assert row[0].split() == ["Build", "Cache", "3", "0", "15kB", "15kB"]
    assert "exec.cachemount" in engine.docker("system", "df", "-v").out
    prune = engine.sampan("builder", "prune", "-f", "--filter", "until=1h")
    assert prune.out == "Total reclaimed space: 0B\n"
    assert (
        engine.api("POST", "/build/prune?filters=%7B%22id%22%3A%5B%22nope%22%5D%7D").json()["CachesDeleted"]
        is None
    )
    assert (
        engine.api("POST", "/build/prune?filters=%7B%22label%22%3A%5B%22x%22%5D%7D").json()["SpaceReclaimed"]
        == 0
    )
    prune = engine.sampan("builder", "prune", "-f", "--keep-storage", "11kB")
    assert prune.out.splitlines()[-1] == "Total reclaimed space: 4kB"  # the one that was not used for longest
    prune = engine.docker("builder", "prune", "-af")
    assert prune.out.splitlines()[-1] == "Total reclaimed space: 11kB" and not caches(engine)
    assert engine.api("POST", "/build/prune?max-used-space=-1").status == 400


@pytest.mark.parametrize(("sharing", "at_once"), [("locked", 1), ("private", 2)])
def test_a_cache_in_use(engine: Engine, busybox: str, sharing: str, at_once: int) -> None:
    """Locked ones are one after the other, private ones apart; what is mounted is not pruned."""
    command = (
        "test ! -e /c/busy || exit 9; touch /c/busy; while test ! -e /c/go; do sleep 0.05; done; rm /c/*"
    )
    body = context(f"FROM {busybox}\nRUN --mount=type=cache,target=/c,sharing={sharing} {command}")
    root = Path(engine.data_root) / "build-caches"
    done: list[Built] = []
    threads = [
        threading.Thread(target=lambda: done.append(build(engine, body, nocache="1"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for _ in range(2 // at_once):
        eventually(lambda: len(list(root.glob("*/data/busy"))) == at_once, 30)
        pruned = engine.api("POST", "/build/prune").json()
        assert pruned["CachesDeleted"] is None and any(one["InUse"] for one in caches(engine))
        for place in root.glob("*/data"):
            (place / "go").touch()
        eventually(lambda: not list(root.glob("*/data/go")), 30)
    for thread in threads:
        thread.join(60)
    assert [one.error for one in done] == ["", ""]
    assert len(caches(engine)) == at_once


def test_secrets_are_written_nowhere(engine: Engine, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"s3cr3t-of-a-file")
    (tmp_path / "Dockerfile").write_text(f"""FROM {busybox}
RUN --mount=type=secret,id=one cat /run/secrets/one > /dev/null && stat -c 'mode %u %a' /run/secrets/one
USER alice
RUN --mount=type=secret,id=two,target=/home/alice/two,uid=1000,mode=0440 test \\
    "$(md5sum < /home/alice/two)" = "{hashlib.md5(b"s3cr3t-of-a-variable").hexdigest()}  -"
RUN --mount=type=secret,id=absent test ! -e /run/secrets/absent && ls -A /home/alice
""")
    done = engine.sampan(
        *(
            "build",
            "-t",
            "secrets",
            "--secret",
            f"id=one,src={tmp_path}/file",
            "--secret",
            "id=two,env=TWO",
            str(tmp_path),
        ),
        env={"TWO": "s3cr3t-of-a-variable"},
    )
    assert "\nmode 0 400\n" in done.out
    assert len(engine.api.get("/images/secrets/json")["RootFS"]["Layers"]) == 2
    assert last_layer(engine, "secrets") == ["home", "home/alice"]  # where a mount point was, and is no more
    saved = engine.api("GET", "/images/secrets/get").body
    told = json.dumps(engine.api.get("/images/secrets/history")) + done.out + done.err
    assert "s3cr3t" not in told and b"s3cr3t" not in saved and "id=two" in told
    # not by a command that fails, and not on the disk: neither in the database nor in a file, also not
    # while a command has it
    headers = secrets(x=b"s3cr3t-held")
    mount = f"FROM {busybox}\nRUN --mount=type=secret,id=x,required"
    failed = build(engine, context(f"{mount} test ! -s /run/secrets/x"), headers, forcerm="1")
    assert "returned a non-zero code: 1" in failed.error
    connection = UnixConnection(engine.socket)
    held = context(f"{mount} exec sleep 47113")
    connection.request("POST", "/build", held, {"Content-Type": "application/x-tar", **headers})
    eventually(lambda: any(one["State"] == "running" for one in engine.api.containers()), 30)
    unwritten(engine, headers=headers, content=b"s3cr3t", text=failed.text + failed.error)
    connection.close()
    eventually(lambda: not engine.api.containers(), 30)
    assert not os.listdir(Path(engine.exec_root, "mounts"))


REFUSED = [
    ("RUN --mount=type=secret,id=x,required cat /run/secrets/x", "secret x: not found"),
    ("RUN --mount=type=secret,id=x,env=X true", "type=secret,env=… is not offered"),
    ("RUN --mount=type=ssh true", "type=ssh needs BuildKit"),
    ("RUN --network=host true", "only for a build that was given --network host"),
    ("RUN --mount=type=bind,source=nope,target=/x true", "RUN --mount: stat nope: file does not exist"),
    ("RUN --mount=type=cache,target=/ true", 'invalid mount target "/"'),
]


def test_what_cannot_be_mounted(engine: Engine, busybox: str) -> None:
    for text, message in REFUSED:
        done = build(engine, context(f"FROM {busybox}\n{text}"), forcerm="1")
        assert message in done.error, text
    assert build(engine, context("FROM x"), {HEADER: "!"}).error == f"{HEADER}: malformed"


def test_a_daemon_that_dies_leaves_nothing(make_daemon: Callable[..., Daemon]) -> None:
    own = make_daemon().start()
    mounts = "--mount=type=secret,id=x --mount=type=cache,target=/c --mount=target=/s"
    text = f"FROM {own.busybox}\nRUN {mounts} exec sleep 47112"
    before = len(own.api.get("/images/json?all=1"))
    headers = secrets(x=b"s3cr3t-held")
    connection = UnixConnection(own.socket)
    connection.request("POST", "/build", context(text), {"Content-Type": "application/x-tar", **headers})
    eventually(lambda: any(one["State"] == "running" for one in own.api.containers()), 30)
    (own.data_root / "build-caches/.new-half/data").mkdir(parents=True)
    own.kill9()
    connection.close()
    own.start()
    eventually(lambda: not own.api.containers(), 30)
    assert len(own.api.get("/images/json?all=1")) == before
    assert not list((own.data_root / "content/ingest").iterdir())
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # gone meanwhile
            assert "sleep\x0047112" not in process.read_text(errors="replace")
    eventually(lambda: len(os.listdir(own.data_root / "build-caches")) == 1, 30)
    mounted = Path("/proc/self/mountinfo").read_text()
    assert f"{own.exec_root}/mounts" not in mounted and f"{own.data_root}/build-caches" not in mounted
    unwritten(own, headers=headers, content=b"s3cr3t")
    (cache,) = own.api.get("/system/df")["BuildCache"]
    assert not cache["InUse"]
    assert own.api("POST", "/build/prune").json()["CachesDeleted"] == [cache["ID"]]
