"""pull, and the pull that `run` and `create` do, with docker's client and ours; a daemon that dies."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api import Api
from support.cli import Cli
from support.engine import Daemon, Engine
from support.proxy import Proxy
from support.registry import PASSWORD, USER, Registry

BIG = random.Random(3).randbytes(8_000_000)


@pytest.fixture(autouse=True)
def _no_image_left(engine: Engine) -> Iterator[None]:
    yield
    for image in engine.api.get("/images/json"):
        if any("127.0.0.1:" in name for name in [*(image["RepoTags"] or []), *(image["RepoDigests"] or [])]):
            engine.api("DELETE", f"/images/{image['Id']}?force=1")


def busybox_files() -> dict[str, bytes]:
    program = next(Path(p, "busybox") for p in ("/bin", "/usr/bin") if Path(p, "busybox").exists())
    return {"bin/busybox": program.read_bytes()}


def test_what_the_client_shows(cli: Cli, engine: Engine, registry: Registry) -> None:
    repository = f"shown-{cli.name}"
    digest = registry.fill(repository, "latest", [{"name": cli.name.encode()}])
    name = f"{registry.host}/{repository}"
    done = cli("pull", name)
    manifest, _ = registry.manifest(repository, "latest")
    layer = manifest["layers"][0]["digest"][7:19]
    assert done.lines == [
        "Using default tag: latest",
        f"latest: Pulling from {repository}",
        f"{layer}: Pulling fs layer",
        f"{layer}: Verifying Checksum",
        f"{layer}: Download complete",
        f"{layer}: Pull complete",
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {name}:latest",
        f"{name}:latest",
    ]
    assert cli("pull", "-q", f"{name}:latest").lines == [f"{name}:latest"]
    assert cli("pull", f"{name}@{digest}").lines[-2:] == [
        f"Status: Image is up to date for {name}@{digest}",
        f"{name}@{digest}",
    ]
    listed = cli("images", "--digests", "--format", "{{.Repository}} {{.Tag}} {{.Digest}}", name).lines
    assert listed == [f"{name} latest {digest}"]


def test_all_tags_of_a_repository(cli: Cli, registry: Registry) -> None:
    repository = f"every-{cli.name}"
    for tag in ("a", "b"):
        registry.fill(repository, tag, [{"tag": tag.encode()}])
    name = f"{registry.host}/{repository}"
    done = cli("pull", "-a", name)
    assert done.lines[-2:] == [f"Status: Downloaded newer image for {name}", name]
    assert sorted(cli("images", "--format", "{{.Tag}}", name).lines) == ["a", "b"]
    refused = cli("pull", "-a", f"{name}:a", code=1)
    assert "tag can't be used with --all-tags/-a" in refused.err


@pytest.mark.parametrize("verb", ["run", "create"])
def test_a_missing_image_is_pulled(cli: Cli, registry: Registry, name: object, verb: str) -> None:
    repository = f"missing-{cli.name}-{verb}"
    registry.fill(repository, "x", [busybox_files()])
    image = f"{registry.host}/{repository}:x"
    container = name()  # type: ignore[operator]
    refused = cli(verb, "--pull", "never", "--name", container, image, "/bin/busybox", "true", code=None)
    assert refused.code in (1, 125)
    assert "No such image" in refused.err
    done = cli(verb, "--name", container, image, "/bin/busybox", "echo", "aboard")
    assert f"Unable to find image '{image}' locally" in done.err
    assert f"Status: Downloaded newer image for {image}" in done.err
    assert verb == "create" or done.out == "aboard\n"
    cli("rm", "-f", container)
    quiet = cli(verb, "--name", container, image, "/bin/busybox", "true")
    assert "Unable" not in quiet.err
    cli("rm", "-f", container)
    again = cli(verb, "--pull", "always", "--name", container, image, "/bin/busybox", "true")
    assert f"Status: Image is up to date for {image}" in again.err
    assert "Unable" not in again.err


def test_a_platform_that_is_not_there(cli: Cli, registry: Registry, name: object) -> None:
    repository = f"platform-{cli.name}"
    registry.fill(repository, "arm", [busybox_files()], architecture="arm64")
    image = f"{registry.host}/{repository}:arm"
    done = cli("pull", "--platform", "linux/s390x", image)
    assert "WARNING: image with reference" in done.out
    container = name()  # type: ignore[operator]
    warned = cli("create", "--name", container, image, "/bin/busybox")
    assert "does not match the detected host platform" in warned.err
    refused = cli("create", "--platform", "linux/s390x", image, "/bin/busybox", code=1)
    assert "was found but its platform (linux/arm64) does not match" in refused.err


def test_refusals_in_dockers_words(cli: Cli, registry: Registry) -> None:
    registry.fill("words", "x")
    for reference in (f"{registry.host}/words:nope", f"{registry.host}/nowhere:latest"):
        refused = cli("pull", reference, code=1)
        assert refused.err.strip() == (
            f"Error response from daemon: manifest for {reference} not found:"
            " manifest unknown: manifest unknown"
        )
    assert "invalid reference format" in cli("pull", "a b", code=1).err
    assert "connection refused" in cli("pull", "127.0.0.1:1/x", code=1).err


def test_with_a_password(cli: Cli, tmp_path: Path) -> None:
    with Registry(tmp_path / "locked", auth=True) as locked:
        locked.fill("mine", "x")
        environment = {"DOCKER_CONFIG": str(tmp_path / "config")}
        (tmp_path / "config").mkdir()
        refused = cli("pull", f"{locked.host}/mine:x", code=1, env=environment)
        assert "authentication required" in refused.err or "no basic auth credentials" in refused.err
        login = ("login", "-u", USER, "--password-stdin", locked.host)
        cli(*login, stdin=PASSWORD.encode(), env=environment)
        cli("pull", f"{locked.host}/mine:x", env=environment)
        cli("rmi", f"{locked.host}/mine:x")
        dockerfile = f"FROM {locked.host}/mine:x\nCMD x".encode()
        done = cli("build", "-", stdin=dockerfile, env={**environment, "DOCKER_BUILDKIT": "0"})
        assert "Pulling from mine" in done.out and "Successfully built" in done.out
        cli("rmi", f"{locked.host}/mine:x", done.out.split()[-1])


def test_on_a_narrow_terminal(cli: Cli, registry: Registry, proxy: Proxy) -> None:
    repository = f"narrow-{cli.name}"
    registry.fill(repository, "latest", [{"big": BIG + cli.name.encode()}, {"small": cli.name.encode()}])
    proxy.rate = 8_000_000
    with cli.terminal("pull", f"{proxy.host}/{repository}", rows=10, columns=40) as terminal:
        seen = terminal.expect(f"{proxy.host}/{repository}:latest\r\n".encode())
        assert terminal.wait() == 0
    assert b"Downloading" in seen
    if cli.name == "sampan":
        shown = [
            re.sub(rb"\x1b\[[0-9]*[A-Z]", b"", part)
            for part in re.split(rb"[\r\n]|\x1b\[[0-9]*[AB]", seen)
            if b"Downloading" in part
        ]
        assert all(len(part) < 40 for part in shown), max(shown, key=len)


def test_a_client_that_leaves_cancels(cli: Cli, engine: Engine, registry: Registry, proxy: Proxy) -> None:
    repository = f"leave-{cli.name}"
    registry.fill(repository, "latest", [{"big": BIG[::-1] + cli.name.encode()}])
    proxy.rate = 400_000  # all of it would take 20 seconds
    with cli.start("pull", f"{proxy.host}/{repository}") as client:
        limit = time.monotonic() + 20
        while proxy.passed < 400_000 and time.monotonic() < limit:
            time.sleep(0.02)
        client.send_signal(signal.SIGINT)
        client.communicate(timeout=10)
    time.sleep(1)
    stopped = proxy.passed
    time.sleep(0.5)
    assert proxy.passed - stopped < 100_000, "the download went on"
    assert stopped < len(BIG)
    assert not [i for i in engine.api.get("/images/json") if repository in str(i["RepoTags"])]
    proxy.rate = 0
    cli("pull", f"{proxy.host}/{repository}")
    assert proxy.passed < len(BIG) * 1.3, "it did not go on where it was"


def pulling(api: Api, path: str) -> None:
    """Start a pull whose end nobody waits for."""

    def run() -> None:
        with contextlib.suppress(Exception):
            api("POST", path, b"", timeout=60)

    threading.Thread(target=run, daemon=True).start()


def test_a_daemon_that_is_killed_meanwhile(
    make_daemon: object, registry: Registry, proxy: Proxy, request: pytest.FixtureRequest
) -> None:
    """The first layers are done, the last one is half way: the next daemon knows nothing of it."""
    own: Daemon = make_daemon().start()  # type: ignore[operator]
    request.addfinalizer(own.end)
    digest = registry.fill("killed", "x", [{"a": b"1"}, {"big": BIG[1:]}])
    manifest, _ = registry.manifest("killed", "x")
    before = {image["Id"] for image in own.api.get("/images/json")}
    data = Path(own.api.get("/info")["DockerRootDir"])
    known = set(os.listdir(data / "content/blobs/sha256"))
    proxy.rate = 3_000_000
    pulling(own.api, f"/images/create?fromImage={proxy.host}/killed&tag=x")
    limit = time.monotonic() + 20
    while proxy.passed < 2_000_000 and time.monotonic() < limit:
        time.sleep(0.02)
    assert any(name.startswith("partial-") for name in os.listdir(data / "content/ingest"))
    own.kill9()
    own.start()
    assert {image["Id"] for image in own.api.get("/images/json")} == before
    assert os.listdir(data / "content/ingest") == []
    assert set(os.listdir(data / "content/blobs/sha256")) == known
    proxy.rate = 0
    own.docker("pull", f"{proxy.host}/killed:x")
    blobs = {digest, manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
    assert set(os.listdir(data / "content/blobs/sha256")) - known == {one[7:] for one in blobs}
    assert os.listdir(data / "content/ingest") == []
    own.docker("rmi", f"{proxy.host}/killed:x")
    assert set(os.listdir(data / "content/blobs/sha256")) == known
