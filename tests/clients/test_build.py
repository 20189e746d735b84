"""`build` with the real client, ours and docker-py: what an image holds, the cache, failures, early ends."""

from __future__ import annotations

import contextlib
import http.client
import io
import os
import re
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import docker
import pytest

from sampan.daemon.service import WORKERS
from support.api import UnixConnection
from support.building import archive_of, members, tidied
from support.building import build as api_build
from support.cli import Cli, Result, docker_release
from support.engine import Engine
from support.hostile import Hostile, reply
from support.machine import eventually

Builder = Callable[..., Result]
CLASSIC = {"DOCKER_BUILDKIT": "0"}


@pytest.fixture(autouse=True)
def tidy(engine: Engine, busybox: str) -> Iterator[None]:
    """Images that tests of this file have made go at their end, with containers of steps that failed."""
    with tidied(engine):
        yield


@pytest.fixture
def context(tmp_path: Path, busybox: str) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    return directory


def write(context: Path, dockerfile: str, **files: str) -> None:
    (context / "Dockerfile").write_text(dockerfile)
    for name, text in files.items():
        (context / name).write_text(text)


def build(cli: Cli, context: Path, *options: str, code: int = 0, stdin: bytes | None = None) -> Result:
    return cli("build", *options, str(context), env=CLASSIC, code=code, stdin=stdin)


def inspect(engine: Engine, image: str) -> dict[str, Any]:
    shown: dict[str, Any] = engine.api.get(f"/images/{image}/json")
    return shown


def run(engine: Engine, image: str, script: str) -> list[str]:
    return engine.docker("run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", script).lines


WHOLE = """\
# escape=`
ARG BASE=nothing
FROM ${BASE} AS first
MAINTAINER Some One
ENV A=1 B="two words" C=${A}st
ARG V=default
RUN echo "$A $B $C $V" > /out; `
    # in the middle
    echo to stderr >&2
WORKDIR /work
WORKDIR deeper
RUN pwd >> /out; id -un >> /out
COPY a.txt ./
LABEL x=y "a b"='$A'
EXPOSE 80 90/udp $A
VOLUME ["/vol", "/v2"]
USER alice
HEALTHCHECK --interval=5s --retries=2 CMD true
SHELL ["/bin/sh", "-ec"]
STOPSIGNAL SIGUSR1
ENTRYPOINT ["cat"]
CMD /out
FROM unneeded.invalid/image AS unneeded
FROM scratch AS empty
COPY --from=first /out /work /copied/
ENV END=1
"""


def test_every_instruction(cli: Cli, engine: Engine, context: Path, busybox: str) -> None:
    write(context, WHOLE, **{"a.txt": "text\n"})
    options = ["--build-arg", f"BASE={busybox}", "--build-arg", "V=given", "--label", "l=1"]
    done = build(cli, context, "-t", "built:one", "-t", "built:two", "--target", "first", *options)
    assert "Step 1/20 : ARG BASE=nothing\nStep 2/20 : FROM ${BASE} AS first\n ---> " in done.out
    assert "\x1b[91mto stderr\n\x1b[0m" in done.out
    shown = inspect(engine, "built:one")
    short = shown["Id"][7:19]
    assert done.out.endswith(
        f"Successfully built {short}\nSuccessfully tagged built:one\nSuccessfully tagged built:two\n"
    )
    config = {name: value for name, value in shown["Config"].items() if value}
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    health = config.pop("Healthcheck")
    assert health == {"Test": ["CMD-SHELL", "true"], "Interval": 5 * 10**9, "Retries": 2}
    assert config == {
        "User": "alice",
        "ExposedPorts": {"80/tcp": {}, "90/udp": {}, "1/tcp": {}},
        "Env": [path, "A=1", "B=two words", "C=st"],  # of the variables before the line
        "Entrypoint": ["cat"],
        "Cmd": ["/bin/sh", "-ec", "/out"],
        "Volumes": {"/vol": {}, "/v2": {}},
        "WorkingDir": "/work/deeper",
        "Labels": {"x": "y", "a b": "$A", "l": "1"},
        "StopSignal": "SIGUSR1",
        "Shell": ["/bin/sh", "-ec"],
    }
    assert shown["Author"] == "Some One"
    assert run(engine, "built:one", "cat /out; ls -ln /work/deeper/a.txt | cut -c 1-30") == [
        "1 two words st given",
        "/work/deeper",
        "root",
        "-rw-r--r--    1 0        0    ",
    ]
    steps = engine.docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", "built:one").lines
    assert steps[0] == "/bin/sh -ec #(nop)  LABEL l=1"
    assert "/bin/sh -c #(nop)  ENV A=1 B=two words C=st" in steps
    assert "/bin/sh -c #(nop) WORKDIR /work/deeper" in steps
    assert "|1 V=given /bin/sh -c pwd >> /out; id -un >> /out" in steps
    assert not engine.api.containers()
    # the second time nothing is done, and the stages after the target come on top
    again = build(cli, context, *options, "--iidfile", str(context / "id"))
    assert again.out.count(" ---> Using cache\n") == 17 and "unneeded" not in again.out
    last = inspect(engine, (context / "id").read_text())
    assert len(last["RootFS"]["Layers"]) == 1 and last["Config"]["Labels"] == {"l": "1"}
    names = sorted(members(engine, last["Id"]))
    assert {"copied", "copied/out", "copied/deeper", "copied/deeper/a.txt"} <= set(names)


def test_the_cache_knows_contents_and_not_times(engine: Engine, context: Path, busybox: str) -> None:
    write(context, f"FROM {busybox}\nCOPY file /\nRUN echo run > /ran\nCMD x", file="one")

    def hits(**query: str) -> int:
        return api_build(engine, archive_of(context), t="cached", **query).hits

    assert hits() == 0
    first = inspect(engine, "cached")["Id"]
    os.utime(context / "file", (1, 1))
    assert hits() == 3
    assert inspect(engine, "cached")["Id"] == first
    (context / "file").chmod(0o600)
    assert hits() == 0
    (context / "file").write_text("two")
    assert hits() == 0  # what comes after a step that was done anew is done anew, too
    assert hits(nocache="1") == 0
    (context / "Dockerfile").write_text(f"FROM {busybox}\nARG A=1\nRUN echo run > /ran\nCMD x")
    other = '{"A":"2"}'
    assert [hits(), hits(), hits(buildargs=other), hits(buildargs=other)] == [0, 3, 1, 3]
    assert hits(buildargs='{"HTTP_PROXY":"http://proxy.invalid"}') == 3  # which is not for images


def test_another_engines_image_serves_as_cache(engine: Engine, context: Path, busybox: str) -> None:
    write(context, f"FROM {busybox}\nENV A=1\nRUN echo run > /ran\nCMD x")
    build(engine.sampan, context, "-t", "exported")
    archive = engine.api("GET", "/images/exported/get").body
    shown = inspect(engine, "exported")
    engine.api("DELETE", "/images/exported?force=1")
    engine.api("POST", "/images/load", archive, headers={"Content-Type": "application/x-tar"})
    (context / "Dockerfile").write_text((context / "Dockerfile").read_text() + "\nLABEL more=1")
    done = build(engine.sampan, context, "--cache-from", "nowhere,exported", "-t", "grown")
    assert done.out.count("Using cache") == 3
    assert inspect(engine, "grown")["RootFS"] == shown["RootFS"]
    # as in Docker these images are then the whole cache
    assert build(engine.sampan, context, "--cache-from", "nowhere").out.count("Using cache") == 0


def test_intermediate_images_go_with_what_needs_them(engine: Engine, context: Path, busybox: str) -> None:
    write(context, f"FROM {busybox}\nENV A=1\nENV A=2\nENV A=3")
    engine.docker("image", "prune", "-f")  # what other tests have left
    before = len(engine.docker("images", "-aq").lines)
    build(engine.docker, context, "-t", "chain")
    assert len(engine.docker("images", "-aq").lines) == before + 3
    assert len(engine.docker("images", "-q", "--filter", "dangling=true").lines) == 0
    engine.docker("rmi", "chain")
    assert len(engine.docker("images", "-aq").lines) == before


def _tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.gid = len(text), 0o640, 5, 6
            archive.addfile(info, io.BytesIO(text))
    return out.getvalue()


def test_copy_and_add(engine: Engine, context: Path, busybox: str) -> None:
    dockerfile = f"""
FROM {busybox} AS made
RUN mkdir -p /from/sub /real && echo f > /from/sub/f && chown -R 7:8 /from && ln -s /real /link
FROM made
COPY tree /tree
COPY tree/. {"t*"}xt /many/
COPY alias /followed
COPY --chown=alice:staff --chmod=0711 tree /owned
COPY --chown=1234 tree/a.txt /number
COPY --from=0 /from /kept
COPY --from=0 --chown=bob /from/sub/f /given
COPY --from={busybox} /etc/passwd /link/passwd
COPY ["two words", "/link/with space"]
ADD packed.tar.gz /unpacked/
ADD packed.tar.gz plain.gz /home/alice/
COPY packed.tar.gz /as-it-is
WORKDIR /home
COPY tree/a.txt .
COPY tree/sub alice
"""
    write(context, dockerfile, **{"two words": "2", "text": "t", "secret.key": "s"})
    (context / "tree/sub").mkdir(parents=True)
    (context / "tree/sub/b").write_text("b")
    (context / "tree/sub/b").chmod(0o755)
    (context / "tree/a.txt").write_text("a")
    (context / "tree/l").symlink_to("/nowhere")
    (context / "alias").symlink_to("tree/a.txt")
    (context / "tree/left.key").write_text("out")
    (context / "tree/sub/in.key").write_text("in")
    (context / ".dockerignore").write_text("**/*.key\n!tree/sub/*.key\n")
    (context / "packed.tar.gz").write_bytes(_tar(x=b"x", y=b"y"))
    (context / "plain.gz").write_bytes(b"\x1f\x8b no archive")
    build(engine.sampan, context, "-t", "copied")
    found = members(engine, "copied")

    def owner(name: str) -> tuple[int, int, int]:
        return (found[name].uid, found[name].gid, found[name].mode)

    assert {"tree/a.txt", "tree/l", "tree/sub/b", "tree/sub/in.key", "many/text", "many/sub/b"} <= set(found)
    assert not {"tree/left.key", "secret.key"} & set(found)
    assert found["tree/l"].linkname == "/nowhere" and found["followed"].isreg()
    assert owner("tree/sub/b") == (0, 0, 0o755) and owner("tree") == (0, 0, 0o755)
    assert owner("owned/sub/b") == (1000, 50, 0o711) and owner("owned")[:2] == (1000, 50)
    assert owner("number") == (1234, 1234, 0o644)
    assert owner("kept/sub") == (7, 8, 0o755) and owner("given")[:2] == (1001, 1001)
    assert found["link"].issym() and {"real/passwd", "real/with space"} <= set(found)
    assert owner("unpacked/x") == (5, 6, 0o640) and found["as-it-is"].size == len(_tar(x=b"x", y=b"y"))
    assert {"home/alice/x", "home/alice/y", "home/alice/plain.gz", "home/a.txt", "home/alice/b"} <= set(found)
    assert owner("home/alice") == (1000, 1000, 0o755)  # as it was


def test_files_of_the_web_and_remote_contexts(engine: Engine, context: Path, busybox: str) -> None:
    with Hostile() as server:
        url = f"http://127.0.0.1:{server.port}"
        server.on("GET", "/dir/file.tar", reply(200, _tar(x=b"x")))
        server.on(
            "GET", "/context.tar.gz", reply(200, _tar(Dockerfile=f"FROM {busybox}\nENV A=tar".encode()))
        )
        server.on("GET", "/alone", reply(200, f"FROM {busybox}\nENV A=text".encode()))
        server.on("GET", "/bad", reply(404, b"no"))
        told = {"Content-Disposition": 'attachment; filename="../dir/told.txt"'}
        server.on("GET", "/get/", reply(200, b"x", told))
        server.on("GET", "/x/%2E%2E", reply(200, b"x"))
        files = f"ADD {url}/dir/file.tar /web/\nADD {url}/dir/file.tar /named\nADD {url}/get/ /web/"
        write(context, f"FROM {busybox}\n{files}")
        build(engine.docker, context, "-t", "web")
        found = members(engine, "web")
        assert found["web/file.tar"].mode == 0o600 and found["named"].size == found["web/file.tar"].size
        assert found["web/told.txt"].size == 1
        unnamed = api_build(engine, _tar(Dockerfile=f"FROM {busybox}\nADD {url}/x/%2e%2e /web/".encode()))
        assert unnamed.error == f"ADD failed: cannot determine filename for source {url}/x/%2e%2e"
        for name, value in (("context.tar.gz", "tar"), ("alone", "text")):
            engine.sampan("build", "-q", "-t", f"remote:{value}", f"{url}/{name}")
            assert f"A={value}" in inspect(engine, f"remote:{value}")["Config"]["Env"]
        assert "status 404" in engine.sampan("build", f"{url}/bad", code=1).err


def test_dockerfiles_from_elsewhere(engine: Engine, context: Path, busybox: str, tmp_path: Path) -> None:
    text = f"FROM {busybox}\nCOPY . /c\nRUN ls -A /c > /list"
    (tmp_path / "Other").write_text(text)
    write(context, "FROM nothing.invalid", kept="k")
    expected = ["Dockerfile", "kept"]
    (tmp_path / "Other.dockerignore").write_text("left")  # as with BuildKit, by our client
    (context / "left").touch()
    build(engine.sampan, context, "-t", "elsewhere", "-f", str(tmp_path / "Other"))
    assert run(engine, "elsewhere", "cat /list") == expected
    (context / "left").unlink()
    for cli in (engine.docker, engine.sampan):
        build(cli, context, "-t", "elsewhere", "-f", str(tmp_path / "Other"))
        assert run(engine, "elsewhere", "cat /list") == expected
        build(cli, context, "-t", "elsewhere", "-f", "-", stdin=text.encode())
        assert run(engine, "elsewhere", "cat /list") == expected
        done = cli("build", "-q", "-", env=CLASSIC, stdin=f"FROM {busybox}\nENV ALONE=1".encode())
        assert "ALONE=1" in inspect(engine, done.out.strip())["Config"]["Env"]
        done = cli("build", "-q", "-f", "D", "-", env=CLASSIC, stdin=_tar(D=f"FROM {busybox}".encode()))
        assert done.out.strip() == inspect(engine, busybox)["Id"]


def test_triggers_of_the_base(engine: Engine, context: Path, busybox: str) -> None:
    write(context, f"FROM {busybox}\nONBUILD COPY file /\nONBUILD RUN cat /file > /seen", file="f")
    build(engine.sampan, context, "-t", "triggers")
    (context / "Dockerfile").write_text("FROM triggers\nENV A=1")
    done = build(engine.sampan, context, "-t", "triggered")
    assert "# Executing 2 build triggers\n" in done.out
    assert run(engine, "triggered", "cat /seen") == ["f"]
    assert not inspect(engine, "triggered")["Config"].get("OnBuild")
    api_build(engine, _tar(Dockerfile=f"FROM {busybox}\nONBUILD COPY []".encode()), t="triggers")
    failed = api_build(engine, _tar(Dockerfile=b"FROM triggers")).error
    assert (
        failed.startswith("ONBUILD COPY []: of the base image: ") and "COPY requires at least two" in failed
    )


def test_limits_and_hosts_of_run(engine: Engine, context: Path, busybox: str) -> None:
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null;"
    script += " ulimit -n; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; grep 10.1.2.3 /etc/hosts;"
    script += " ls /sys/class/net"
    write(context, f"FROM {busybox}\nRUN {script}")
    options = ["-m", "64m", "--ulimit", "nofile=77", "--shm-size", "8m", "--network", "none"]
    for cli in (engine.docker, engine.sampan):
        done = build(cli, context, *options, "--add-host", "fix:10.1.2.3", "--no-cache")
        assert done.out.split("Running in ")[1].splitlines()[1:6] == [
            *("67108864", "77", "8192", "10.1.2.3\tfix", "lo")
        ]


def test_a_command_that_fails(cli: Cli, engine: Engine, context: Path, busybox: str) -> None:
    write(context, f"FROM {busybox}\nENV A=1\nRUN echo said; exit 7")
    done = build(cli, context, "-q", code=7)
    assert done.err.endswith("The command '/bin/sh -c echo said; exit 7' returned a non-zero code: 7\n")
    assert "said\n" in done.err and done.out == ""
    left = engine.api.containers()
    assert [one["State"] for one in left] == ["exited"]  # to be looked at
    engine.api.remove(left[0]["Id"])
    done = build(cli, context, "--force-rm", "--iidfile", str(context / "id"), code=7)
    assert "Using cache" in done.out and not (context / "id").exists()
    assert not engine.api.containers()
    (context / "Dockerfile").write_text(f"FROM {busybox}\nRUN true")
    build(cli, context, "--rm=false")
    assert len(engine.api.containers()) == 1


REFUSED = [
    (
        "FROM busybox\nCOPY nope /",
        "COPY failed: file not found in build context or excluded by .dockerignore",
    ),
    ("FROM busybox\nCOPY *.zip /", "COPY failed: no source files were specified"),
    ("FROM busybox\nCOPY ../x /", "COPY failed: forbidden path outside the build context: ../x ()"),
    ("FROM busybox\nCOPY a b /f", "When using COPY with more than one source file, the destination must be"),
    ("FROM busybox\nCOPY . /etc/passwd", "cannot copy to non-directory: /etc/passwd"),
    ("FROM busybox\nCOPY --chown=nobody9 a /", "unable to find user nobody9"),
    ("FROM busybox\nCOPY --chmod=u+q a /", "invalid chmod parameter: 'u+q'"),
    ("FROM busybox\nWORKDIR /etc/passwd/x", "cannot copy to non-directory: /etc/passwd"),
    ("FROM busybox\nEXPOSE x", "invalid containerPort: x"),
    ("FROM busybox\nUSER nobody9\nRUN id", "unable to find user nobody9: no matching entries in passwd file"),
    ("FROM scratch", "No image was generated. Is your Dockerfile empty?"),
    ("FROM scratch\nRUN x", "RUN needs files: nothing has been copied onto scratch yet"),
    ("FROM $x", "base name ($x) should not be blank"),
    (f"FROM busybox\nENV a={'a' * 10**6}\nENV b=$a$a\nLABEL c=$b", "would have more than 8388608 bytes"),
]
MALFORMED = [
    ("FETCH x", "dockerfile parse error on line 1: unknown instruction: FETCH"),
    ("FROM busybox\nENV A", "dockerfile parse error on line 2: ENV must have two arguments"),
    ("FROM busybox\nONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
    ("FROM busybox\nRUN --security=insecure y", "RUN: the option --security needs BuildKit"),
    ("FROM busybox\nCOPY a", "COPY requires at least two arguments, but only one was provided"),
]


def test_what_cannot_be_built(engine: Engine, context: Path, busybox: str) -> None:
    write(context, "", a="a", b="b")
    for text, message in REFUSED:
        (context / "Dockerfile").write_text(text)
        assert message in api_build(engine, archive_of(context), forcerm="1").error, text
    for text, message in MALFORMED:
        answer = post(engine, _tar(Dockerfile=text.encode()))
        assert answer.status == 400 and message in answer.message, text
    whole = _tar(Dockerfile=b"FROM busybox")
    for query, status, message in (
        ({"version": "2"}, 501, "needs BuildKit"),
        ({"squash": "1"}, 501, "squash is not offered"),
        ({"outputs": '[{"Type":"tar"}]'}, 501, "outputs: exporting"),
        ({"remote": "https://example.org/x.git#-x"}, 400, "invalid refspec: -x"),
        ({"remote": "client-session"}, 501, "needs BuildKit"),
        ({"isolation": "hyperv"}, 400, "invalid isolation"),
        ({"t": "UPPER"}, 400, "must be lowercase"),
        ({"target": "nope"}, 400, 'target stage "nope" could not be found'),
        ({"dockerfile": "Other"}, 400, "Cannot locate specified Dockerfile: Other"),
        ({"buildargs": "[1]"}, 400, "buildargs: expected a JSON object of texts"),
        ({"memory": "x"}, 400, "memory: 'x' is not a number"),
    ):
        answer = post(engine, whole, **query)
        assert (answer.status, message in answer.message) == (status, True), (query, answer.message)
    assert "cannot be unpacked" in post(engine, b"no archive" * 100).message
    assert post(engine, _tar(Dockerfile=b" \n")).message == "the Dockerfile (Dockerfile) cannot be empty"
    assert not engine.api.containers()


def post(engine: Engine, body: bytes, **query: str) -> Any:
    return engine.api(
        "POST", f"/build?{urlencode(query)}", body, headers={"Content-Type": "application/x-tar"}
    )


def begun(engine: Engine, body: bytes, **query: str) -> http.client.HTTPConnection:
    """A build that has been asked for."""
    connection = UnixConnection(engine.socket)
    connection.request("POST", f"/build?{urlencode(query)}", body=body)
    return connection


def test_a_build_ends_with_its_client(engine: Engine, busybox: str) -> None:
    body = _tar(Dockerfile=f"FROM {busybox}\nENV A=1\nRUN exec sleep 4711".encode())
    engine.docker("image", "prune", "-f")  # what other tests have left
    for end in ("leave", "cancel"):
        connection = begun(engine, body, buildid="mine")
        eventually(lambda: [one for one in engine.api.containers() if one["State"] == "running"], 30)
        # an image that a build stands on is not taken away
        assert engine.api("POST", "/images/prune", timeout=60).json()["ImagesDeleted"] is None
        if end == "cancel":
            assert engine.api("POST", "/build/cancel?id=mine").status == 200
            assert b"the build was cancelled" in connection.getresponse().read()
        else:
            assert connection.sock is not None
            connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        eventually(lambda: not engine.api.containers(), 30)
    assert engine.api("POST", "/build/cancel").message == "build ID not provided"
    assert post(engine, body[:-20]).status == 400  # half a context


def test_builds_that_wait_for_others_keep_nobody_waiting(engine: Engine, busybox: str) -> None:
    """They have threads of their own, and do not take those that all other work shares."""
    with socket.create_server(("127.0.0.1", 0)) as silent, contextlib.ExitStack() as held:
        silent.settimeout(30)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        for number in range(WORKERS + 2):
            if number % 2:
                connection = begun(engine, b"", remote=url)
            else:
                connection = begun(engine, _tar(Dockerfile=f"FROM {busybox}\nADD {url} /x".encode()))
            held.callback(connection.close)
            held.enter_context(silent.accept()[0])
        assert engine.api("GET", "/images/json", timeout=30).status == 200


def test_slow_clients_keep_nobody_waiting(engine: Engine) -> None:
    """Who sends an archive little by little, or does not read one, has a thread for it alone."""
    head = "Host: x\r\nContent-Type: application/x-tar\r\nContent-Length: 99999\r\n\r\nx"
    large = _tar(file=os.urandom(4 << 20))
    image = engine.api("POST", "/images/create?fromSrc=-", large).json()["status"]
    made = engine.api("POST", "/containers/create", {"Image": image, "Cmd": ["x"]}).json()["Id"]
    put = f"PUT /containers/{made}/archive?path=/ HTTP/1.1\r\n{head}"
    load = f"POST /images/load HTTP/1.1\r\n{head}"
    save = f"GET /images/{image}/get HTTP/1.1\r\nHost: x\r\n\r\n"
    try:
        for text in (put, load, save):
            with contextlib.ExitStack() as held:
                for _ in range(WORKERS + 2):
                    client = held.enter_context(socket.socket(socket.AF_UNIX))
                    client.settimeout(30)
                    client.connect(engine.socket)
                    client.sendall(text.encode())
                    if text is save:
                        assert client.recv(9) == b"HTTP/1.1 "
                assert engine.api("GET", "/images/json", timeout=30).status == 200
    finally:
        engine.api.remove(made)


def test_prunes_take_nothing_that_is_needed_since_they_began(engine: Engine, busybox: str) -> None:
    """Images that a build makes or finds, or that a container is made of, while prunes work."""
    over = threading.Event()
    answers = []

    def prune() -> None:
        while not over.is_set():
            answers.append(engine.api("POST", "/images/prune", timeout=60).status)

    pruning = threading.Thread(target=prune)
    pruning.start()
    try:
        for number in range(3):
            steps = "".join(f"ENV A{step}={number // 2}\n" for step in range(40))
            assert not api_build(engine, _tar(Dockerfile=f"FROM {busybox}\n{steps}".encode())).error
        for number in range(40):
            config = urlencode({"fromSrc": "-", "changes": f"LABEL number={number}"})
            image = engine.api("POST", f"/images/create?{config}", _tar(file=b"")).json()["status"]
            made = engine.api("POST", "/containers/create", {"Image": image, "Cmd": ["/x"]})
            if made.status == 201:
                assert engine.api("GET", f"/images/{image}/json").status == 200
                engine.api.remove(made.json()["Id"])
            else:
                assert made.message.startswith("No such image: ")
    finally:
        over.set()
        pruning.join()
    assert set(answers) == {200}


@pytest.mark.skipif(docker_release() < (28,), reason="compared with docker's client from release 28 on")
def test_mistakes_are_told_in_dockers_words(engine: Engine, context: Path) -> None:
    write(context, "FROM busybox", file="x")
    here, file = str(context), str(context / "file")
    for words in (
        [],
        ["/nope"],
        [file],
        ["-f", "nope", here],
        ["-f", "-", "-"],
        ["-t", "UPPER", here],
        ["--label", "=", here],
        ["--build-arg", "=", here],
        ["--memory", "x", here],
        ["--nope", here],
        ["-q", "--iidfile", "/nope/x", here],
    ):
        theirs = engine.docker("build", *words, env=CLASSIC, code=None)
        ours = engine.sampan("build", *words, code=None)
        text = re.sub(r"\bdocker\b", "sampan", theirs.err)
        end = text.find("environment-variable.\n\n")
        text = text[end + 23 :] if end >= 0 else text
        assert (ours.code, ours.out, ours.err) == (theirs.code, theirs.out, text), words
    refused = engine.sampan("build", "--ssh", "default", here, code=125)
    assert "--ssh needs BuildKit" in refused.err


def test_docker_py(engine: Engine, context: Path, busybox: str) -> None:
    write(context, f"FROM {busybox}\nARG A\nRUN echo $A > /a\nLABEL from=file", x="x")
    with contextlib.closing(docker.DockerClient(base_url=engine.host)) as client:
        image, log = client.images.build(
            path=str(context), tag="py", buildargs={"A": "b"}, labels={"more": "1"}, rm=True
        )
        assert image.tags == ["py:latest"] and image.labels == {"from": "file", "more": "1"}
        assert any("Successfully built" in line.get("stream", "") for line in log)
        image, _ = client.images.build(fileobj=io.BytesIO(f"FROM {busybox}\nCMD x".encode()), quiet=True)
        with pytest.raises(docker.errors.BuildError, match="non-zero code: 3"):
            client.images.build(fileobj=io.BytesIO(f"FROM {busybox}\nRUN exit 3".encode()), forcerm=True)
        with pytest.raises(docker.errors.APIError, match="unknown instruction"):
            client.images.build(fileobj=io.BytesIO(b"FETCH x"))
