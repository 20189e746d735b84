"""Clients of older versions of the API: raw requests for each shape that changed, then whole scenarios."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

from support.contract import operations
from support.engine import Daemon

Names = Callable[[], str]
NOT_OURS = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs", "/plugins")
VERSIONS = ("1.24", "1.30", "1.41", "1.47", "1.51")


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def made(daemon: Daemon, busybox: str, name: Names, version: str) -> str:
    """A container created by a client of that version."""
    one = name()
    body = {"Image": busybox, "Cmd": ["sh", "-c", "echo ahoy; exit 3"]}
    assert daemon.api("POST", f"/v{version}/containers/create?name={one}", body).status == 201
    return one


def test_info(daemon: Daemon, version: str) -> None:
    shape, at = daemon.api.get(f"/v{version}/info"), number(version)
    assert ("ExecutionDriver" in shape) == (at < (1, 25))
    assert all(("=" in option) == (at >= (1, 25)) for option in shape["SecurityOptions"])
    assert shape["SecurityOptions"]
    assert ("KernelMemory" in shape) == (at < (1, 42))
    assert ("Expected" in shape["RuncCommit"]) == (at < (1, 49))
    assert ("BridgeNfIptables" in shape) == (at < (1, 50))


def test_defaults_of_namespaces(daemon: Daemon, made: str, version: str) -> None:
    host, at = daemon.api.inspect(made)["HostConfig"], number(version)
    assert host["IpcMode"] == ("shareable" if at < (1, 40) else "private")
    assert host["CgroupnsMode"] == ("host" if at < (1, 41) else "private")


def test_images(daemon: Daemon, busybox: str, version: str) -> None:
    at = number(version)
    (listed,) = daemon.api.get(f'/v{version}/images/json?filters={{"reference":["{busybox}"]}}')
    assert ("VirtualSize" in listed) == (at < (1, 44))
    shape = daemon.api.get(f"/v{version}/images/{busybox}/json")
    assert ("VirtualSize" in shape) == (at < (1, 44))
    assert ("Container" in shape, "ContainerConfig" in shape) == ((at < (1, 45),) * 2)
    assert ("Tty" in shape["Config"]) == (at < (1, 50))
    named = daemon.api.get(f"/v{version}/images/json?filter=no-such-image-here")
    assert (named == []) == (at < (1, 41))  # later versions have no `filter`


def test_a_platform_is_looked_at_since_1_41(daemon: Daemon, busybox: str, name: Names, version: str) -> None:
    body = {"Image": busybox, "Cmd": ["true"]}
    target = f"/v{version}/containers/create?name={name()}&platform=windows/amd64"
    assert daemon.api("POST", target, body).status == (201 if number(version) < (1, 41) else 400)


def test_wait_has_conditions_since_1_30(daemon: Daemon, made: str, version: str) -> None:
    api = daemon.api
    wrong = api("POST", f"/v{version}/containers/{made}/wait?condition=nonsense")
    if number(version) < (1, 30):
        assert (wrong.status, wrong.json()["StatusCode"]) == (200, 0)  # it has not run
    else:
        assert (wrong.status, wrong.message) == (400, 'invalid condition: "nonsense"')
    assert api("POST", f"/v{version}/containers/{made}/start").status == 204
    assert api("POST", f"/v{version}/containers/{made}/wait").json()["StatusCode"] == 3


def test_streams(daemon: Daemon, made: str, version: str) -> None:
    api = daemon.api
    api("POST", f"/v{version}/containers/{made}/start")
    api("POST", f"/v{version}/containers/{made}/wait")
    logs = api("GET", f"/v{version}/containers/{made}/logs?stdout=1")
    assert logs.body == b"\x01\0\0\0\0\0\0\x05ahoy\n"
    raw = number(version) < (1, 42)
    assert logs.headers["content-type"] == (
        "application/vnd.docker.raw-stream" if raw else "application/vnd.docker.multiplexed-stream"
    )


def test_no_host_config_at_start(daemon: Daemon, made: str, version: str) -> None:
    answer = daemon.api("POST", f"/v{version}/containers/{made}/start", {"Binds": ["/:/host"]})
    assert answer.status == 400
    assert answer.message.startswith("starting container with non-empty request body was deprecated")
    assert daemon.api("POST", f"/v{version}/containers/{made}/start", {}).status == 204
    daemon.api("POST", f"/containers/{made}/wait")


def test_errors_are_messages(daemon: Daemon, version: str) -> None:
    answer = daemon.api("GET", f"/v{version}/containers/no-such-one/json")
    assert (answer.status, answer.json()) == (404, {"message": "No such container: no-such-one"})


def test_versions_that_are_not_spoken(daemon: Daemon) -> None:
    old, new = daemon.api("GET", "/v1.23/info"), daemon.api("GET", "/v1.52/info")
    assert old.status == 400 and "client version 1.23 is too old" in old.message
    assert new.status == 400 and "client version 1.52 is too new" in new.message


def test_what_docker_has_and_we_do_not_is_refused_by_name(daemon: Daemon) -> None:
    """No endpoint of Docker's is a page that nobody knows."""
    for one in operations():
        target = one.path.replace("{id}", "no-such-one").replace("{name}", "no-such-one")
        if one.name != "PUT /volumes/{name}" and not target.startswith(NOT_OURS):
            continue
        answer = daemon.api(one.method, target)
        if one.name == "GET /plugins":
            assert (answer.status, answer.json()) == (200, [])
        elif "{name}" in one.path and target.startswith("/plugins"):
            assert (answer.status, answer.message) == (404, 'plugin "no-such-one" not found'), one.name
        elif target.startswith("/plugins"):
            assert (answer.status, answer.message) == (501, "plugins are not offered yet"), one.name
        else:
            assert answer.status == 503 and "not a swarm manager" in answer.message, one.name
    for method, target in (("POST", "/session"), ("POST", "/grpc")):
        answer = daemon.api(method, target)
        assert answer.status == 501 and answer.message.endswith("not offered yet"), target


@pytest.fixture
def client(daemon: Daemon, version: str) -> Iterator[docker.DockerClient]:
    opened = docker.DockerClient(base_url=daemon.host, version=version)
    yield opened
    opened.close()


def test_docker_py(client: docker.DockerClient, busybox: str, name: Names, version: str) -> None:
    assert client.api._version == version
    assert client.version()["ApiVersion"] == "1.51"
    one: Any = client.containers.run(
        busybox, ["cat"], detach=True, name=name(), stdin_open=True, mem_limit="64m", labels={"a": "b"}
    )
    assert [found.name for found in client.containers.list(filters={"label": "a=b"})] == [one.name]
    assert one.exec_run(["echo", "ahoy"]).output == b"ahoy\n"
    one.pause()
    one.reload()
    assert one.status == "paused"
    one.unpause()
    one.restart(timeout=0)
    one.stop(timeout=0)
    assert one.wait()["StatusCode"] == 137
    assert one.logs() == b""
    image = one.commit(repository="old", tag=f"v{version}")
    assert f"old:v{version}" in image.tags
    client.images.remove(f"old:v{version}")
    one.remove()
    volume = client.volumes.create(one.name)
    assert volume.attrs["Mountpoint"]
    volume.remove()
    assert {network.name for network in client.networks.list()} >= {"bridge", "host", "none"}
    archive = io.BytesIO(b"".join(client.images.get(busybox).save(named=True)))
    assert client.images.load(archive.getvalue())[0].tags


@pytest.mark.parametrize("version", ["1.24", "1.41"], indirect=True)
def test_dockers_own_client(daemon: Daemon, busybox: str, name: Names, version: str) -> None:
    cli, one = daemon.docker, name()
    old = type(cli)(cli.name, cli.program, cli.host, {**cli.environment, "DOCKER_API_VERSION": version})
    assert old("version", "--format", "{{.Client.APIVersion}}").out.strip() == version
    assert old("run", "--rm", "-i", busybox, "cat", stdin=b"in").out == "in"
    old("run", "-d", "--name", one, busybox, "sleep", "60")
    assert old("exec", one, "echo", "ahoy").out == "ahoy\n"
    assert one in old("ps").out
    assert busybox in old("images").out
    assert old("inspect", "--format", "{{.State.Running}}", one).out == "true\n"
    old("stop", "-t", "0", one)
    assert old("wait", one).out == "137\n"
    old("rm", one)
