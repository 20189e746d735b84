"""Shared by every tier: paths, markers that skip by name, engines under test, the check for leaks."""

from __future__ import annotations

import functools
import gc
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(TESTS.parent / "src"))
sys.path.insert(0, str(TESTS))

from sampan.database import Database  # noqa: E402
from support.cli import Cli, docker_release  # noqa: E402  (the paths come first)
from support.engine import RUNNING, TOKEN, Daemon, Engine, left_containers, left_networks  # noqa: E402
from support.machine import EMULATED, Snapshot, remove_cgroup_parents  # noqa: E402
from support.spawning import NURSERY  # noqa: E402

if TYPE_CHECKING:
    from support.outside import Outside
    from support.proxy import Proxy
    from support.registry import Registry

# A shell that runs us in the background lets us ignore it; clients under test are to take it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Quick and telling tiers first. Everything below these folders needs a daemon.
TIERS = ("unit", "integration", "attack", "clients", "integration/daemon", "machines")
# With several rows of tests at once, what takes longest begins first.
LONGEST = (
    "machines/test_machines.py",
    "machines/test_systemd.py",
    "integration/packaging/test_packages.py",
    "clients/test_docker_py_suite.py",
    "clients/test_tutorial.py",
    "clients/test_create_fields.py",
    "integration/images/pull/test_images_pull.py",
    "integration/daemon/test_daemon_autostart.py",
    "integration/daemon/test_daemon_faults.py",
)
NEED_DAEMON = ("clients", "integration/daemon", "machines/inside")
UNSEEN = pytest.StashKey[list[str]]()  # endpoints that no test has asked
LEAK_PATIENCE_S = 10.0  # removal of links and directories may happen after the answer


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("sampan")
    group.addoption(
        "--engine-host", help="test the engine at this unix:// address instead of a sampand of our own"
    )
    group.addoption("--cli", choices=("docker", "sampan"), help="test with this command line alone")


@functools.cache
def _place(path: Path) -> str:
    """A file's path below ours; there are twenty tests a file."""
    return path.relative_to(TESTS).as_posix()


def _tier(item: pytest.Item) -> int:
    folder = _place(item.path)
    return max((n for n, tier in enumerate(TIERS) if folder.startswith(tier + "/")), default=0)


def _length(item: pytest.Item) -> int:
    file = _place(item.path)
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


def _is_dealt_to_another(item: pytest.Item) -> bool:
    """Whether the other client does this: each combination of a `dealt` test's other parameters is one's."""
    if item.get_closest_marker("dealt") is None or item.config.getoption("--engine-host"):
        return False
    indices = item.callspec.indices  # type: ignore[attr-defined]
    return item.config.getoption("--cli") is None and sum(indices.values()) % 2 == 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    elsewhere = {item for item in items if _is_dealt_to_another(item)}
    if elsewhere:
        config.hook.pytest_deselected(items=list(elsewhere))
        items[:] = [item for item in items if item not in elsewhere]
    items.sort(key=_tier)
    if hasattr(config, "workerinput"):  # we are one of several rows: see tools/run_tests.py
        items.sort(key=_length)
    for item in items:
        folder = _place(item.path)
        if folder.startswith(tuple(f"{tier}/" for tier in NEED_DAEMON)):
            item.add_marker("daemon")
        needs_daemon = item.get_closest_marker("daemon") is not None
        if (needs_daemon or item.get_closest_marker("root")) and os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="needs root"))
        elif needs_daemon and shutil.which("docker") is None:
            item.add_marker(pytest.mark.skip(reason="needs the program docker (Debian: docker.io)"))


def pytest_collectstart() -> None:
    """Collecting makes much and drops little: a search for garbage is a fifth of it, and finds nothing."""
    gc.disable()


def pytest_collection_finish() -> None:
    """The tests themselves stay until the end: let no search for garbage go through them again and again."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cli" in metafunc.fixturenames:
        only = metafunc.config.getoption("--cli")
        external = metafunc.config.getoption("--engine-host")
        names = [only] if only else ["docker"] if external else ["docker", "sampan"]
        metafunc.parametrize("cli", names, indirect=True)


@pytest.fixture(scope="session")
def base(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The directory of everything that the engines of this session own; nothing may be left of it.

    At the end all answers of the session are held against Docker's description of the API.
    """
    directory = Path(tempfile.mkdtemp(prefix=f"{TOKEN}-"))
    before = Snapshot.take(str(directory), TOKEN)
    yield directory
    for engine in list(RUNNING):
        if isinstance(engine, Daemon):
            engine.end()
    NURSERY.end()
    deadline = time.monotonic() + LEAK_PATIENCE_S
    while (
        leaked := Snapshot.take(str(directory), TOKEN).leaked_since(before)
    ) and time.monotonic() < deadline:
        time.sleep(0.1)
    if leaked:
        pytest.fail("the engines left behind:\n" + "\n".join(leaked), pytrace=False)
    remove_cgroup_parents(TOKEN)
    wrong = []
    if answers := list(directory.rglob("answers.jsonl")):  # a fork's daemon notes none
        from support.contract import judge  # its libraries are not needed before

        verdict = judge(answers)
        wrong = verdict.wrong
        request.config.stash[UNSEEN] = verdict.unseen
        if hasattr(request.config, "workeroutput"):
            request.config.workeroutput["unseen"] = verdict.unseen
    shutil.rmtree(directory)
    if wrong:
        pytest.fail("answers that Docker's API does not give:\n" + "\n".join(wrong), pytrace=False)


@pytest.fixture(scope="session")
def make_daemon(base: Path) -> Callable[..., Daemon]:
    """Makes further daemons, not yet started; `end()` is the test's duty."""
    numbers = itertools.count(1)
    return lambda *flags, config="{}": Daemon(base / f"d{next(numbers)}", *flags, config=config)


@pytest.fixture(scope="session")
def daemon(base: Path, request: pytest.FixtureRequest) -> Daemon:
    """One sampand for the whole session."""
    if request.config.getoption("--engine-host"):
        pytest.skip("needs a daemon of its own, not --engine-host")
    session = Daemon(base / "session")
    session.nursed = EMULATED  # else one at least is started as users do
    return session.start()


@pytest.fixture
def own(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon for one test alone."""
    made = make_daemon().start()
    assert made.busybox
    yield made
    made.end()


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Engine:
    """The engine under test: the session's daemon, or the one named by --engine-host."""
    host: str | None = request.config.getoption("--engine-host")
    if host is None:
        started: Daemon = request.getfixturevalue("daemon")
        return started
    scratch: Path = request.getfixturevalue("base")
    external = Engine(host.removeprefix("unix://"), scratch / "client")
    RUNNING.append(external)
    return external


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Older clients of docker's are tried too, but not held to the words of a newer one."""
    if item.get_closest_marker("release28") is None or "docker" not in item.callspec.params.values():
        return
    release = docker_release()
    if release < (28,):
        found = ".".join(map(str, release))
        pytest.skip(f"compared with docker's client from release 28 on; the one here is {found}")


@pytest.fixture
def cli(request: pytest.FixtureRequest, engine: Engine) -> Cli:
    """The docker client, then ours, at the engine under test."""
    return engine.cli(request.param)


@pytest.fixture
def busybox(engine: Engine) -> str:
    """The name of the busybox image."""
    return engine.busybox


@pytest.fixture
def debian(engine: Engine) -> str:
    """The name of the Debian image."""
    return engine.debian


@pytest.fixture
def name(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Gives names for containers; those that exist at the test's end are removed."""
    numbers = itertools.count(1)
    given: list[str] = []

    def fresh() -> str:
        given.append(f"t{os.getpid()}-{abs(hash(request.node.nodeid)) % 10**6}-{next(numbers)}")
        return given[-1]

    yield fresh
    for engine in RUNNING:
        if not isinstance(engine, Daemon) or engine.process is not None:
            for one in given:
                engine.api.remove(one)


@pytest.fixture
def volume(engine: Engine, name: Callable[[], str]) -> Iterator[str]:
    """A volume, and its removal."""
    one = name()
    assert engine.api("POST", "/volumes/create", {"Name": one}).status == 201
    yield one
    for container in engine.api.containers():
        if any(mount.get("Name") == one for mount in container["Mounts"]):
            engine.api.remove(container["Id"])
    assert engine.api("DELETE", f"/volumes/{one}").status == 204


@pytest.fixture(scope="module")
def world() -> Iterator[Outside]:
    """Servers, names and addresses outside of the engine's networks."""
    from support.outside import outside  # its libraries are only needed here

    with outside() as made:
        yield made


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry: Debian's docker-registry."""
    from support.registry import Registry  # its libraries are only needed here

    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Proxy]:
    """A proxy before the registry, where the network is to fail."""
    from support.proxy import Proxy

    with Proxy(registry.port) as running:
        yield running


@pytest.fixture(autouse=True)
def _databases_are_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what a test has opened here: Python 3.13 warns of a connection that is merely dropped."""
    opened: list[Database] = []
    initialise = Database.__init__

    def remembering(self: Database, path: Path) -> None:
        initialise(self, path)
        opened.append(self)

    monkeypatch.setattr(Database, "__init__", remembering)
    yield
    for database in opened:
        database.close()


@pytest.fixture(autouse=True, scope="module")
def _no_container_left() -> Iterator[None]:
    """Each module removes the containers it makes."""
    yield
    left = [
        thing
        for engine in RUNNING
        if not isinstance(engine, Daemon) or engine.process is not None
        for thing in (*left_containers(engine), *left_networks(engine))
    ]
    if left:
        pytest.fail("the module left behind: " + ", ".join(left), pytrace=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the daemons' own words beside a failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        for engine in RUNNING:
            if text := engine.log_text()[-4000:]:
                report.sections.append((f"log of {engine.host}", text))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """What no row of tests has asked, nobody has."""
    unseen = getattr(node, "workeroutput", {}).get("unseen")
    if unseen is not None:
        others = node.config.stash.get(UNSEEN, unseen)
        node.config.stash[UNSEEN] = [one for one in unseen if one in others]


_MANY_UNSEEN = 60


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Repeat what the static checks before us found, then count in plain words."""
    unseen = config.stash.get(UNSEEN, [])
    if unseen and len(unseen) < _MANY_UNSEEN:  # else only some of the tests were run
        terminalreporter.write_line(
            f"{len(unseen)} of Docker's endpoints were not asked: {', '.join(unseen)}"
        )
    for check in filter(None, os.environ.get("SAMPAN_FAILED_CHECKS", "").split("\n")):
        terminalreporter.write_line(f"FAILED check: {check}", red=True)
    counts = {
        kind: len(terminalreporter.stats.get(kind, [])) for kind in ("passed", "failed", "error", "skipped")
    }
    again = os.environ.get("SAMPAN_FAILED_TESTS")
    if again and not counts["error"]:  # what leaked, say, is no single test's
        ids = [report.nodeid for report in terminalreporter.stats.get("failed", [])]
        Path(again).write_text("\n".join(ids))
    failed = counts["failed"] + counts["error"]
    terminalreporter.write_line(f"{counts['passed']} passed, {failed} failed, {counts['skipped']} skipped")
