"""`prune` of everything, its filters and questions; filters of the lists; `events` with since and until."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.cli import Cli
from support.engine import Daemon

Names = Callable[[], str]
NO_TIME = 'failed to parse value as time or duration: "x"'


@pytest.fixture(scope="module")
def own(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon of which all may be pruned."""
    daemon = make_daemon().start()
    assert daemon.busybox
    yield daemon
    daemon.end()


@pytest.fixture
def client(cli: Cli, own: Daemon) -> Cli:
    """Each command line, at that daemon."""
    return own.cli(cli.name)


def names(own: Daemon) -> list[str]:
    return sorted(one["Names"][0].removeprefix("/") for one in own.api.containers())


def test_containers(client: Cli, own: Daemon) -> None:
    own.docker("run", "-d", "--name", "runs", own.busybox, "sleep", "60")
    for name, label in (("aa", "x=1"), ("bb", "x=2"), ("cc", "y=1")):
        own.docker("run", "--name", name, "--label", label, own.busybox, "sh", "-c", "yes | head -c 5000 >/f")
    assert names(own) == ["aa", "bb", "cc", "runs"]
    client("container", "prune", "-f", "--filter", "until=1h")
    assert names(own) == ["aa", "bb", "cc", "runs"]
    done = client("container", "prune", "-f", "--filter", "label=x=1")
    assert done.lines[0] == "Deleted Containers:" and done.lines[-1].startswith("Total reclaimed space: 5")
    assert names(own) == ["bb", "cc", "runs"]
    client("container", "prune", "-f", "--filter", "label!=y")
    assert names(own) == ["cc", "runs"]
    asked = client("container", "prune", stdin=b"n\n")
    assert asked.out.startswith("WARNING! This will remove all stopped containers.\nAre you sure")
    assert names(own) == ["cc", "runs"]
    client("container", "prune", stdin=b"y\n")
    assert names(own) == ["runs"]
    assert client("container", "prune", "-f").out == "Total reclaimed space: 0B\n"
    own.docker("rm", "-f", "runs")


def test_networks(client: Cli) -> None:
    assert client("network", "prune", "-f").out == ""
    asked = client("network", "prune", stdin=b"n\n")
    assert asked.out.startswith(
        "WARNING! This will remove all custom networks not used by at least one container."
    )
    assert client("network", "prune", "-f", "--filter", "until=24h", "--filter", "label!=x").code == 0
    bad = client("network", "prune", "-f", "--filter", "bogus=1", code=1)
    assert bad.err.strip() == "Error response from daemon: invalid filter 'bogus'"


def test_volumes(client: Cli, own: Daemon) -> None:
    for name, label in (("named", "keep=1"), ("other", "x=1")):
        own.docker("volume", "create", "--label", label, name)
    own.docker(
        "run", "--name", "holder", "-v", "/anonymous", own.busybox, "sh", "-c", "echo 12345 >/anonymous/f"
    )
    volumes = lambda: sorted(own.docker("volume", "ls", "-q").lines)  # noqa: E731
    assert len(volumes()) == 3
    client("volume", "prune", "-f")
    assert len(volumes()) == 3, "it is in use"
    own.docker("rm", "holder")
    done = client("volume", "prune", "-f")
    assert done.lines[-1] == "Total reclaimed space: 6B"
    assert volumes() == ["named", "other"]
    client("volume", "prune", "-af", "--filter", "label!=keep")
    assert volumes() == ["named"]
    client("volume", "prune", "-af")
    assert volumes() == []


def test_images(client: Cli, own: Daemon) -> None:
    for tag, label in (("one", "x=1"), ("two", "y=1")):
        own.docker("create", "--name", tag, own.busybox, "true")
        own.docker("commit", "-c", f"LABEL {label}", tag, f"made:{tag}")
        own.docker("rm", tag)
    tags = lambda: sorted(own.docker("images", "made", "--format", "{{.Tag}}").lines)  # noqa: E731
    client("image", "prune", "-f")
    assert tags() == ["one", "two"], "they have names"
    client("image", "prune", "-af", "--filter", "until=1h")
    assert tags() == ["one", "two"]
    client("image", "prune", "-af", "--filter", "label=x=1")
    assert tags() == ["two"]
    own.docker("create", "--name", "user", "made:two", "true")
    client("image", "prune", "-af", "--filter", "label=y")
    assert tags() == ["two"], "a container uses it"
    own.docker("rm", "user")
    client("image", "prune", "-af", "--filter", "label=y")
    assert tags() == []


def test_system(client: Cli, own: Daemon) -> None:
    own.docker("run", "--name", "gone", "-v", "/anonymous", own.busybox, "true")
    done = client("system", "prune", "--filter", "label!=keep", stdin=b"n\n")
    assert "Items to be pruned will be filtered with:\n  - label!=keep" in done.out
    assert client("system", "prune", "-f", "--filter", "label=none").lines == ["Total reclaimed space: 0B"]
    assert names(own) == ["gone"]
    done = client("system", "prune", "-f", "--volumes")
    assert "Deleted Containers:" in done.out and "Deleted Volumes:" in done.out
    assert names(own) == [] and own.docker("volume", "ls", "-q").out == ""
    client("system", "prune", "--volumes", "--filter", "until=1h", code=1)


def test_what_pruning_tells(own: Daemon) -> None:
    since = time.time()
    for kind in ("containers", "networks", "volumes", "images"):
        assert own.api("POST", f"/{kind}/prune").status == 200
    window = ("--since", f"{since:.6f}", "--until", f"{time.time() + 0.01:.6f}")
    told = own.docker("events", *window, "--filter", "event=prune", "--format", "json")
    events = [json.loads(line) for line in told.lines]
    assert [event["Type"] for event in events] == ["container", "network", "volume", "image"]
    assert all(event["Actor"]["Attributes"] == {"reclaimed": "0"} for event in events)


def test_prunes_side_by_side_are_refused_or_done(own: Daemon) -> None:
    for number in range(6):
        own.docker("create", "--name", f"n{number}", own.busybox, "true")
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: own.api("POST", "/containers/prune"), range(6)))
    assert {answer.status for answer in answers} <= {200, 409}
    assert all(
        answer.message == "a prune operation is already running" for answer in answers if answer.status == 409
    )
    deleted = [
        one for answer in answers if answer.status == 200 for one in answer.json()["ContainersDeleted"] or ()
    ]
    assert len(deleted) == len(set(deleted)) == 6


@pytest.mark.parametrize(
    ("method", "target", "said"),
    [
        ("GET", '/containers/json?filters={"bogus":["x"]}', "invalid filter 'bogus'"),
        ("GET", '/images/json?filters={"bogus":["x"]}', "invalid filter 'bogus'"),
        ("GET", '/images/json?filters={"dangling":["x"]}', "invalid filter 'dangling=[x]'"),
        ("GET", '/images/json?filters={"until":["x"]}', NO_TIME),
        ("GET", '/networks?filters={"bogus":["x"]}', "invalid filter 'bogus'"),
        ("GET", '/networks?filters={"type":["x"]}', "invalid filter: 'type'='x'"),
        ("GET", '/networks?filters={"dangling":["x"]}', "invalid filter 'dangling=[x]'"),
        ("GET", '/volumes?filters={"bogus":["x"]}', "invalid filter 'bogus'"),
        ("GET", '/volumes?filters={"dangling":["1","0"]}', "invalid filter 'dangling=[1 0]'"),
        ("GET", '/events?filters={"bogus":["x"]}&until=1', "invalid filter 'bogus'"),
        ("GET", "/events?since=20&until=10", "`since` time (20) cannot be after `until` time (10)"),
        ("GET", "/system/df?type=bogus", "unknown object type: bogus"),
        ("POST", '/containers/prune?filters={"until":["1h","2h"]}', "more than one until filter specified"),
        (
            "POST",
            '/containers/prune?filters={"until":["x"]}',
            'failed to parse value as time or duration: "x"',
        ),
        ("POST", '/containers/prune?filters={"status":["exited"]}', "invalid filter 'status'"),
        ("POST", '/networks/prune?filters={"until":["x"]}', NO_TIME),
        ("POST", '/volumes/prune?filters={"until":["1h"]}', "invalid filter 'until'"),
        ("POST", '/volumes/prune?filters={"all":["x"]}', "strconv.ParseBool"),
        ("POST", '/images/prune?filters={"dangling":["x"]}', "invalid filter 'dangling=[x]'"),
        ("POST", '/images/prune?filters={"reference":["x"]}', "invalid filter 'reference'"),
    ],
)
def test_bad_filters(own: Daemon, method: str, target: str, said: str) -> None:
    answer = own.api(method, target.replace('"', "%22").replace("{", "%7B").replace("}", "%7D"))
    assert answer.status == 400 and said in answer.message, answer.body


def test_lists_of_networks(client: Cli) -> None:
    def listed(*options: str) -> list[str]:
        words = [word for option in options for word in ("--filter", option)]
        return sorted(client("network", "ls", "--format", "{{.Name}}", *words).lines)

    assert listed() == ["bridge", "host", "none"]
    assert listed("name=^b") == listed("driver=bridge") == ["bridge"]
    assert listed("name=b", "name=o") == ["bridge", "host", "none"]
    assert (
        listed("type=custom") == listed("dangling=true") == listed("label=x") == listed("scope=swarm") == []
    )
    assert listed("type=builtin", "dangling=false", "scope=local") == ["bridge", "host", "none"]


def test_lists_of_volumes(client: Cli, own: Daemon) -> None:
    for name in ("front-1", "back-1"):
        own.docker("volume", "create", "--label", f"of={name}", name)
    own.docker("create", "--name", "user", "-v", "back-1:/x", own.busybox, "true")

    def listed(*options: str) -> list[str]:
        words = [word for option in options for word in ("--filter", option)]
        return sorted(client("volume", "ls", "-q", *words).lines)

    assert listed("name=front") == listed("name=^f.*1$") == listed("label=of=front-1") == ["front-1"]
    assert listed("dangling=true") == ["front-1"] and listed("dangling=0") == ["back-1"]
    assert listed("driver=local", "label=of") == ["back-1", "front-1"]
    assert listed("driver=nfs") == []
    own.docker("rm", "user")
    own.docker("volume", "rm", "front-1", "back-1")


def test_events_that_have_been(client: Cli, own: Daemon) -> None:
    begun = time.time()
    own.docker("run", "--name", "noisy", "--label", "tier=test", own.busybox, "true")
    own.docker("rm", "noisy")
    ended = time.time() + 0.01
    window = ("--since", f"{begun:.6f}", "--until", f"{ended:.6f}")

    def actions(*filters: str, form: str = "{{.Action}}") -> list[str]:
        words = [word for text in filters for word in ("--filter", text)]
        return client("events", *window, "--format", form, *words).lines

    life = ["create", "attach", "start", "die", "destroy"]
    assert [action for action in actions("container=noisy") if action in life] == life
    assert actions("event=start", "event=die") == ["start", "die"]
    assert actions("container=nois", "event=destroy", form="{{.Type}} {{.Actor.Attributes.name}}") == [
        "container noisy"
    ]
    assert actions(f"image={own.busybox}", "event=start") == ["start"]
    assert actions("label=tier=test", "event=create", "type=container") == ["create"]
    assert actions("type=image", "event=start") == []
    times = [json.loads(line)["timeNano"] for line in client("events", *window, "--format", "json").lines]
    assert times == sorted(set(times)) and len(times) >= 5
    everything = client("events", "--until", f"{ended:.6f}", "--format", "{{.Action}}").lines
    assert everything[-len(times) :] == actions() and len(everything) >= len(times)


def test_only_so_many_events_are_kept(own: Daemon) -> None:
    own.docker("volume", "create", "v0")
    own.docker("volume", "rm", "v0")
    for number in range(150):
        assert own.api("POST", "/volumes/create", {"Name": f"v{number}"}).status == 201
        assert own.api("DELETE", f"/volumes/v{number}").status == 204
    until = f"{time.time() + 0.01:.6f}"
    form = "{{.Action}} {{.Actor.ID}}"
    told = own.docker("events", "--since", "0", "--until", until, "--format", form).lines
    assert len(told) == 256
    assert told[-1] == "destroy v149"


def test_info_has_every_field(own: Daemon) -> None:
    info = own.api.get("/v1.51/info")
    for name in (
        "ID Containers ContainersRunning ContainersPaused ContainersStopped Images Driver DriverStatus "
        "DockerRootDir Plugins MemoryLimit SwapLimit CpuCfsPeriod CpuCfsQuota CPUShares CPUSet PidsLimit "
        "OomKillDisable IPv4Forwarding Debug NFd NGoroutines SystemTime LoggingDriver CgroupDriver "
        "CgroupVersion NEventsListener KernelVersion OperatingSystem OSVersion OSType Architecture NCPU "
        "MemTotal IndexServerAddress RegistryConfig GenericResources HttpProxy HttpsProxy NoProxy Name "
        "Labels "
        "ExperimentalBuild ServerVersion Runtimes DefaultRuntime Swarm LiveRestoreEnabled Isolation "
        "InitBinary ContainerdCommit RuncCommit InitCommit SecurityOptions CDISpecDirs Warnings "
        "FirewallBackend"
    ).split():
        assert name in info, name
    assert "BridgeNfIptables" not in info
    assert "BridgeNfIptables" in own.api.get("/v1.49/info")
    old = own.api.get("/v1.40/info")
    assert old["KernelMemory"] is False and old["RuncCommit"]["Expected"] == ""


def test_ping(own: Daemon) -> None:
    for method in ("GET", "HEAD"):
        answer = own.api(method, "/_ping")
        assert answer.status == 200 and answer.body == (b"OK" if method == "GET" else b"")
        wanted = {
            "api-version": "1.51", "ostype": "linux", "docker-experimental": "false", "swarm": "inactive",
            "builder-version": "1", "cache-control": "no-cache, no-store, must-revalidate",
            "pragma": "no-cache",
        }  # fmt: skip
        assert wanted.items() <= answer.headers.items()
        assert answer.headers["server"].startswith("Sampan/")


def test_disk_usage_in_detail(client: Cli, own: Daemon) -> None:
    own.docker("volume", "create", "holds")
    own.docker(
        "run",
        "--name",
        "writer",
        "-v",
        "holds:/v",
        own.busybox,
        "sh",
        "-c",
        "yes | head -c 7000 | tee /f >/v/f",
    )
    short = client("system", "df").out
    assert [line.split()[0] for line in short.splitlines()] == [
        "TYPE",
        "Images",
        "Containers",
        "Local",
        "Build",
    ]
    long = client("system", "df", "-v").out
    assert "Images space usage:" in long and "Local Volumes space usage:" in long
    (container,) = (line for line in long.splitlines() if line.endswith("writer"))
    assert "7kB" in container
    (volume,) = (line for line in long.splitlines() if line.startswith("holds "))
    assert volume.split() == ["holds", "1", "7kB"]
    own.docker("rm", "-v", "writer")
    own.docker("volume", "rm", "holds")
