"""`sampan.connect()`: what it starts is watched from outside, by the API and the kernel."""

from __future__ import annotations

import asyncio
import io
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import sampan
from sampan.client import (
    CommandFailed,
    ConnectionFailed,
    Container,
    DeadlineExceeded,
    Session,
)
from sampan.errors import Conflict, Forbidden, InvalidParameter, NotFound, Unsupported
from support.engine import Engine
from support.machine import eventually

Names = Callable[[], str]
Scenario = Callable[[Session], Awaitable[None]]


def play(engine: Engine, scenario: Scenario) -> None:
    """Run a scenario with a session of its own; at its end no connection of ours is left at the daemon."""

    async def within() -> None:
        async with asyncio.timeout(60):
            async with sampan.connect(engine.host) as session:
                await scenario(session)

    asyncio.run(within())


def containers(engine: Engine) -> set[str]:
    return {one["Id"] for one in engine.api.containers()}


def processes(mark: str) -> list[int]:
    """The processes of the machine whose command line has this word."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def mark() -> str:
    """A number of seconds that nobody else sleeps for."""
    return f"3{time.time_ns() % 10**9}"


@pytest.fixture
def resident(engine: Engine, busybox: str, name: Names) -> Iterator[str]:
    """A container that runs."""
    one = name()
    engine.docker("run", "-d", "--name", one, busybox, "sleep", "600")
    yield one


async def until(what: Callable[[], object]) -> None:
    """Wait for something to be seen from outside while the scenario goes on."""
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.02)


async def expect_cancelled(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_run(engine: Engine, busybox: str) -> None:
    before = containers(engine)

    async def scenario(s: Session) -> None:
        done = await s.run(busybox, ["sh", "-c", "echo out; echo err >&2"])
        assert (done.exit_code, done.stdout, done.stderr) == (0, b"out\n", b"err\n")
        assert done.text == "out"
        assert (await s.run(busybox, "cat", input=b"x" * 3_000_000)).stdout == b"x" * 3_000_000
        seen = await s.run(
            busybox,
            ["sh", "-c", "echo $GREETING; pwd; id -u"],
            environment={"GREETING": "ahoy"},
            working_dir="/tmp",
            user="1000",
            host_config={"CapDrop": ["ALL"]},
        )
        assert seen.text == "ahoy\n/tmp\n1000"
        with pytest.raises(CommandFailed, match="exit code 3: no good") as raised:
            await s.run(busybox, ["sh", "-c", "echo so far; echo no good >&2; exit 3"])
        assert (raised.value.exit_code, raised.value.stdout) == (3, b"so far\n")
        assert (await s.run(busybox, "false", check=False)).exit_code == 1
        many = await asyncio.gather(*(s.run(busybox, ["echo", str(n)]) for n in range(8)))
        assert [one.text for one in many] == [str(n) for n in range(8)]
        assert containers(engine) == before  # at once: run waits for the removal

    play(engine, scenario)


def test_refusals_are_typed_and_leave_nothing(engine: Engine, busybox: str, resident: str) -> None:
    before = containers(engine)

    async def scenario(s: Session) -> None:
        with pytest.raises(InvalidParameter, match="no-such-program"):
            await s.run(busybox, "no-such-program")
        with pytest.raises(NotFound, match="no-such-container"):
            await s.containers.get("no-such-container")
        with pytest.raises(Conflict, match=resident):
            await s.containers.create(busybox, name=resident)
        with pytest.raises(NotFound, match="no-such-image"):
            await s.images.inspect("no-such-image")
        with pytest.raises(Conflict):
            await s.images.remove(busybox)
        assert containers(engine) == before

    play(engine, scenario)


def test_a_deadline_ends_the_container_of_run(engine: Engine, busybox: str) -> None:
    before, seconds = containers(engine), mark()

    async def scenario(s: Session) -> None:
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"within 1 seconds") as raised:
            await s.run(busybox, ["sleep", seconds], timeout=1)
        assert isinstance(raised.value, TimeoutError)
        assert not hasattr(raised.value.__cause__, "__notes__")
        assert time.monotonic() - begun < 9  # far below the ten seconds that a stop would take
        assert not processes(seconds)
        assert containers(engine) == before

    play(engine, scenario)


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.2, 0.5])
def test_run_cancelled_at_any_moment_leaves_nothing(engine: Engine, busybox: str, after_s: float) -> None:
    before, seconds = containers(engine), mark()

    async def scenario(s: Session) -> None:
        task = asyncio.create_task(s.run(busybox, ["sh", "-c", f"sleep {seconds} & sleep {seconds}"]))
        await asyncio.sleep(after_s)
        await expect_cancelled(task)
        assert containers(engine) == before
        assert not processes(seconds)

    play(engine, scenario)


def test_a_cancelled_create_leaves_no_container(engine: Engine, busybox: str) -> None:
    before = containers(engine)

    async def scenario(s: Session) -> None:
        for steps in range(12):
            task = asyncio.create_task(s.containers.create(busybox))
            for _ in range(steps):
                await asyncio.sleep(0.001)
            if task.done():
                await (await task).remove()
            else:
                await expect_cancelled(task)
            assert containers(engine) == before

    play(engine, scenario)


def test_exec(engine: Engine, resident: str) -> None:
    async def scenario(s: Session) -> None:
        container = await s.containers.get(resident)
        done = await container.exec(["sh", "-c", "cat; echo err >&2; exit 7"], input=b"in", check=False)
        assert (done.exit_code, done.stdout, done.stderr) == (7, b"in", b"err\n")
        with pytest.raises(CommandFailed):
            await container.exec("false")

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield b"y" * 100_000

        assert (await container.exec(["wc", "-c"], input=pieces())).text == "5000000"
        some = await container.exec(["sh", "-c", "echo first; echo last"], input=b"z" * 5_000_000)
        assert some.stdout == b"first\nlast\n"
        # A process that ends without reading what it is given is no failure.
        assert (await container.exec("true", input=b"z" * 5_000_000)).exit_code == 0
        async with await container.open_exec(["cat"]) as process:
            await process.write(b"one\n")
            assert (await anext(process)).data == b"one\n"
            await process.write(b"two\n")
            assert (await anext(process)).data == b"two\n"
            process.write_eof()
            assert await process.wait() == 0
        async with await container.open_exec(
            ["sh", "-c", "trap 'exit 9' TERM; echo up; sleep 60 & wait"]
        ) as p:
            assert (await anext(p)).data == b"up\n"
            await p.kill("SIGTERM")
            assert await p.wait() == 9

    play(engine, scenario)


@pytest.mark.parametrize("after_s", [0.0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.1, 0.4])
def test_exec_cancelled_at_any_moment_is_killed(engine: Engine, resident: str, after_s: float) -> None:
    seconds = mark()

    async def scenario(s: Session) -> None:
        command = ["sh", "-c", f"(setsid sleep {seconds} &) ; sleep {seconds}"]
        task = asyncio.create_task(Container(s._transport, resident).exec(command))
        await asyncio.sleep(after_s)
        await expect_cancelled(task)
        await asyncio.sleep(0.2)
        assert not processes(seconds)
        assert engine.api.inspect(resident)["State"]["Running"]

    play(engine, scenario)


def test_a_deadline_and_a_left_context_end_an_exec(engine: Engine, resident: str) -> None:
    seconds = mark()

    async def scenario(s: Session) -> None:
        container = await s.containers.get(resident)
        with pytest.raises(DeadlineExceeded):
            await container.exec(["sh", "-c", f"trap '' TERM; sleep {seconds}"], timeout=0.5)
        assert not processes(seconds)
        async with await container.open_exec(["sleep", seconds]):
            await until(lambda: processes(seconds))
        assert not processes(seconds)

    play(engine, scenario)


def test_wait_gives_up_but_the_container_runs_on(engine: Engine, resident: str) -> None:
    async def scenario(s: Session) -> None:
        container = await s.containers.get(resident)
        with pytest.raises(DeadlineExceeded):
            await container.wait(timeout=0.3)
        assert engine.api.inspect(resident)["State"]["Running"]
        waiting = asyncio.create_task(container.wait(timeout=20))
        await container.kill("SIGKILL")
        assert await waiting == 137

    play(engine, scenario)


def test_a_pull_can_be_given_up(engine: Engine) -> None:
    """From a registry that says nothing."""

    async def scenario(s: Session) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            name = f"127.0.0.1:{silent.getsockname()[1]}/slow"
            with pytest.raises(DeadlineExceeded, match="slow"):
                await s.images.pull(name, timeout=0.5)
            task = asyncio.create_task(s.images.pull(name))
            await asyncio.sleep(0.2)
            await expect_cancelled(task)
            with pytest.raises(NotFound):
                await s.images.inspect(name)

    play(engine, scenario)


def test_life_of_a_container(engine: Engine, busybox: str, name: Names) -> None:
    async def scenario(s: Session) -> None:
        first, second = name(), name()
        container = await s.containers.create(busybox, ["sleep", "600"], name=first, labels={"crew": first})
        assert (await container.inspect())["State"]["Status"] == "created"
        await container.start()
        (found,) = await s.containers.list(filters={"label": [f"crew={first}"]})
        assert (found.id, found.attributes["State"]) == (container.id, "running")
        await container.pause()
        assert engine.api.inspect(first)["State"]["Status"] == "paused"
        await container.unpause()
        await container.rename(second)
        assert engine.api.inspect(second)["Id"] == container.id
        await container.update(Memory=64 << 20, MemorySwap=64 << 20)
        assert engine.api.inspect(second)["HostConfig"]["Memory"] == 64 << 20
        assert (await container.top())["Processes"][0][-1] == "sleep 600"
        await container.restart(grace=0)
        await container.stop(grace=0)
        assert await container.wait() == 137
        image = await container.commit(f"{first}:v1")
        assert (await s.images.inspect(f"{first}:v1"))["Id"] == image
        await s.images.remove(f"{first}:v1")
        await container.remove()
        with pytest.raises(NotFound):
            await container.inspect()

    play(engine, scenario)


def test_streams(engine: Engine, busybox: str, name: Names) -> None:
    async def scenario(s: Session) -> None:
        one = name()
        script = "while read line; do echo got $line; echo err $line >&2; done"
        async with s.events(filters={"container": [one]}) as events:
            container = await s.containers.create(busybox, ["sh", "-c", script], name=one, stdin_open=True)
            async with await container.attach(stdin=True) as streams:
                await container.start()
                stats = container.stats()
                assert (await anext(stats))["pids_stats"]["current"] >= 1
                stats.close()
                await streams.write(b"a\n")
                pieces = {await anext(streams), await anext(streams)}
                assert pieces == {("stdout", b"got a\n"), ("stderr", b"err a\n")}
                async with container.logs(follow=True, stderr=False) as logs:
                    assert (await anext(logs)).data == b"got a\n"
                    await streams.write(b"b\n")
                    assert (await anext(logs)).data == b"got b\n"
                    streams.write_eof()
                    assert [piece async for piece in logs] == []
            assert await container.wait() == 0
            tail = [piece async for piece in container.logs(tail=2)]
            assert sorted(tail) == [("stderr", b"err b\n"), ("stdout", b"got b\n")]
            seen = [(await anext(events))["Action"] for _ in range(4)]
            assert seen == ["create", "attach", "start", "die"]
        await container.remove()

    play(engine, scenario)


def test_a_stream_that_is_left_is_closed(engine: Engine, resident: str) -> None:
    """Seen at the daemon: it holds as many descriptors as before."""
    daemon = getattr(engine, "pid", None)
    if daemon is None:
        pytest.skip("needs a daemon of its own, not --engine-host")

    def descriptors() -> int:
        return len(list(Path(f"/proc/{daemon}/fd").iterdir()))

    async def scenario(s: Session) -> None:
        await s.info()
        await asyncio.sleep(0.3)
        before = descriptors()
        container = await s.containers.get(resident)
        streams = [container.logs(follow=True), container.stats(), s.events()]
        for stream in streams:
            await stream.__aenter__()  # type: ignore[attr-defined]
        waiting = [asyncio.create_task(anext(stream)) for stream in (streams[0], streams[2])]
        await until(lambda: descriptors() >= before + 3)
        await asyncio.sleep(0.1)  # let them read: a task that has not begun has nothing to close
        for task in waiting:
            await expect_cancelled(task)
        streams[1].close()
        await until(lambda: descriptors() <= before)

    play(engine, scenario)


def test_images(engine: Engine, busybox: str, name: Names) -> None:
    async def scenario(s: Session) -> None:
        tag = f"{name()}:v1"
        await s.images.tag(busybox, tag)
        assert any(tag in one["RepoTags"] for one in await s.images.list())
        archive = b"".join([piece async for piece in s.images.save(tag)])
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            assert "manifest.json" in tar.getnames()
        assert {"Untagged": tag} in await s.images.remove(tag)
        assert tag in (await s.images.load(archive))[0]
        assert (await s.images.inspect(tag))["Id"] == (await s.images.inspect(busybox))["Id"]
        assert await s.images.history(tag)
        await s.images.remove(tag)

    play(engine, scenario)


def test_networks_and_volumes(engine: Engine, busybox: str, name: Names) -> None:
    async def scenario(s: Session) -> None:
        assert {"bridge", "host", "none"} <= {one["Name"] for one in await s.networks.list()}
        assert (await s.networks.inspect("bridge"))["Driver"] == "bridge"
        network = name()
        made = await s.networks.create(
            network, subnet="10.232.50.0/24", internal=True, labels={"for": "tests"}
        )
        shown = await s.networks.inspect(network)
        assert shown["Id"] == made and shown["Internal"] and shown["Labels"] == {"for": "tests"}
        one = await s.containers.create(busybox, ["sleep", "60"], name=name())
        await one.start()
        await s.networks.connect(network, one.id, address="10.232.50.9", aliases=["ahoy"])
        there = (await one.inspect())["NetworkSettings"]["Networks"][network]
        assert (there["IPAddress"], there["Aliases"]) == ("10.232.50.9", ["ahoy"])
        with pytest.raises(Forbidden, match="active endpoints"):
            await s.networks.remove(network)
        await s.networks.disconnect(network, one.id)
        await s.networks.remove(network)
        await one.remove(force=True)
        volume = name()
        await s.volumes.create(volume, labels={"for": "tests"})
        assert volume in {one["Name"] for one in await s.volumes.list()}
        await s.run(busybox, ["sh", "-c", "echo kept >/v/file"], binds=[f"{volume}:/v"])
        assert (await s.run(busybox, ["cat", "/v/file"], binds=[f"{volume}:/v:ro"])).text == "kept"
        assert (await s.volumes.inspect(volume))["Labels"] == {"for": "tests"}
        await s.volumes.remove(volume)
        with pytest.raises(NotFound):
            await s.volumes.inspect(volume)

    play(engine, scenario)


def test_nobody_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(ConnectionFailed, match="is it running"):
            async with sampan.connect(f"unix://{tmp_path}/none.sock"):
                pass

    asyncio.run(scenario())
    with pytest.raises(Unsupported, match="unix socket"):
        sampan.connect("tcp://127.0.0.1:2375")
    with pytest.raises(InvalidParameter, match="unable to parse"):
        sampan.connect("ftp://127.0.0.1")
    with pytest.raises(Unsupported, match="started by need"):
        sampan.connect(f"unix://{tmp_path}/none.sock", start=True)


def test_importing_loads_no_client() -> None:
    program = "import sys; before = set(sys.modules); import sampan; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "asyncio" not in done.stdout and "sampan.client" not in done.stdout


def test_the_daemon_dies_in_mid_call(make_daemon: Callable[..., object], busybox: str) -> None:
    daemon = make_daemon().start()  # type: ignore[attr-defined]
    try:
        image, before = daemon.busybox, containers(daemon)

        async def scenario(s: Session) -> None:
            seconds = mark()
            task = asyncio.create_task(s.run(image, ["sleep", seconds]))
            await until(lambda: processes(seconds))
            await asyncio.sleep(1)  # the streams are the container's by now, and stay open
            daemon.kill9()
            with pytest.raises(ConnectionFailed) as raised:
                await task
            assert "may be left" in raised.value.__notes__[0]

        play(daemon, scenario)
        daemon.start()
        eventually(lambda: len(containers(daemon)) == len(before) + 1, what="the container is known again")
    finally:
        daemon.end()


def test_files_in_and_out(engine: Engine, resident: str) -> None:
    async def scenario(s: Session) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            member = tarfile.TarInfo("cargo")
            member.size = 3
            tar.addfile(member, io.BytesIO(b"tea"))
        container = await s.containers.get(resident)
        await container.put_archive("/tmp", packed.getvalue())
        assert (await container.exec(["cat", "/tmp/cargo"])).stdout == b"tea"
        taken = b"".join([piece async for piece in container.get_archive("/tmp/cargo")])
        with tarfile.open(fileobj=io.BytesIO(taken)) as tar:
            found = tar.extractfile("cargo")
            assert found is not None and found.read() == b"tea"
        with pytest.raises(NotFound):
            await anext(container.get_archive("/no/such/file"))

    play(engine, scenario)
