"""The daemon killed at random instants of every operation: afterwards all that tells of containers agrees."""

from __future__ import annotations

import http.client
import io
import os
import random
import tarfile
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from support.agreement import disagreements
from support.engine import Daemon
from support.machine import Snapshot, eventually

KILLS = int(os.environ.get("SAMPAN_TEST_KILLS", "18"))  # 300 when there is time
SLOTS = 4


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("copied")
        info.size = 100_000
        tar.addfile(info, io.BytesIO(b"x" * info.size))
    return buffer.getvalue()


class Worker:
    """Does one operation after another on a few containers, come what may."""

    def __init__(self, daemon: Daemon, seed: int) -> None:
        self.daemon = daemon
        self.done: dict[str, int] = {}  # operations that the daemon said had succeeded
        self.stop = threading.Event()
        self._dice = random.Random(seed)
        self._archive = _archive()
        self.thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        while not self.stop.is_set():
            slot = f"slot-{self._dice.randrange(SLOTS)}"
            operation = self._dice.choice(OPERATIONS)
            try:
                answers = operation(self, slot)
            except (OSError, ValueError, http.client.HTTPException):
                time.sleep(0.01)  # nobody is there, or no longer: an answer may have been cut short
                continue
            if answers < 400:
                name = operation.__name__
                self.done[name] = self.done.get(name, 0) + 1

    def ask(self, method: str, target: str, body: Any = None) -> int:
        return int(self.daemon.api(method, target, body, timeout=30).status)

    def create(self, slot: str) -> int:
        port = 23_000 + int(slot[-1])
        body = {
            "Image": self.daemon.busybox,
            "Cmd": ["sh", "-c", "trap 'exit 5' TERM; while :; do echo tick; sleep 0.05; done"],
            "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": str(port)}]}, "Memory": 64 << 20},
        }
        return self.ask("POST", f"/containers/create?name={slot}", body)

    def start(self, slot: str) -> int:
        return self.ask("POST", f"/containers/{slot}/start")

    def halt(self, slot: str) -> int:
        return self.ask("POST", f"/containers/{slot}/stop?t=1")

    def kill(self, slot: str) -> int:
        return self.ask("POST", f"/containers/{slot}/kill")

    def restart(self, slot: str) -> int:
        return self.ask("POST", f"/containers/{slot}/restart?t=0")

    def pause(self, slot: str) -> int:
        return self.ask("POST", f"/containers/{slot}/pause")

    def unpause(self, slot: str) -> int:
        return self.ask("POST", f"/containers/{slot}/unpause")

    def rename(self, slot: str) -> int:
        other = f"slot-{self._dice.randrange(SLOTS)}"
        return self.ask("POST", f"/containers/{slot}/rename?name={other}")

    def update(self, slot: str) -> int:
        return self.ask("POST", f"/containers/{slot}/update", {"Memory": 48 << 20, "MemorySwap": 96 << 20})

    def execute(self, slot: str) -> int:
        answer = self.daemon.api("POST", f"/containers/{slot}/exec", {"Cmd": ["sleep", "0.05"]}, timeout=30)
        if answer.status != 201:
            return int(answer.status)
        return self.ask("POST", f"/exec/{answer.json()['Id']}/start", {"Detach": True})

    def kill_exec(self, slot: str) -> int:
        answer = self.daemon.api("POST", f"/containers/{slot}/exec", {"Cmd": ["sleep", "60"]}, timeout=30)
        if answer.status != 201:
            return int(answer.status)
        started = self.ask("POST", f"/exec/{answer.json()['Id']}/start", {"Detach": True})
        return started if started >= 400 else self.ask("POST", f"/exec/{answer.json()['Id']}/kill")

    def export(self, slot: str) -> int:
        return self.ask("GET", f"/containers/{slot}/export")

    def prune(self, _: str) -> int:
        return self.ask("POST", "/containers/prune")

    def copy_in(self, slot: str) -> int:
        return self.ask("PUT", f"/containers/{slot}/archive?path=/tmp", self._archive)

    def copy_out(self, slot: str) -> int:
        return self.ask("GET", f"/containers/{slot}/archive?path=/etc")

    def commit(self, slot: str) -> int:
        return self.ask("POST", f"/commit?container={slot}&repo=committed&tag={slot}")

    def remove(self, slot: str) -> int:
        return self.ask("DELETE", f"/containers/{slot}?force=1")


OPERATIONS: tuple[Callable[[Worker, str], int], ...] = (
    *(Worker.create, Worker.create, Worker.create, Worker.start, Worker.start, Worker.start),
    *(Worker.halt, Worker.kill, Worker.restart, Worker.pause, Worker.unpause, Worker.rename, Worker.update),
    *(Worker.execute, Worker.execute, Worker.copy_in, Worker.copy_out, Worker.commit, Worker.remove),
    *(Worker.kill_exec, Worker.export, Worker.prune),
)


@pytest.mark.timeout(60 + KILLS * 8)
def test_killed_in_the_middle_of_everything(own: Daemon) -> None:
    before = Snapshot.take(str(own.base), str(own.base))
    seed = int(os.environ.get("SAMPAN_TEST_SEED", "11"))
    dice = random.Random(seed)
    workers = [Worker(own, seed + number) for number in range(2)]
    for worker in workers:
        worker.thread.start()
    try:
        for number in range(KILLS):
            time.sleep(dice.uniform(0.05, 0.5))
            own.kill9()
            own.start()
            if number % 6 == 5:
                _settle(own, workers)
    finally:
        for worker in workers:
            worker.stop.set()
            worker.thread.join()
    _agree(own)
    done = {name: sum(worker.done.get(name, 0) for worker in workers) for name in workers[0].done}
    assert len(done) >= 10, f"hardly anything was done between the kills: {done}"
    for one in own.api.containers():
        assert own.api("DELETE", f"/containers/{one['Id']}?force=1&v=1").status == 204
    eventually(lambda: disagreements(own) == [], what="after all were removed")
    for image in own.api.get("/images/json"):
        if any(tag.startswith("committed:") for tag in image["RepoTags"] or ()):
            assert own.api("DELETE", f"/images/{image['Id']}?force=1").status == 200
    now = Snapshot.take(str(own.base), str(own.base))
    now.processes = {text for text in now.processes if "monitor" in text}
    assert now.leaked_since(before) == []


def _settle(own: Daemon, workers: list[Worker]) -> None:
    """Let the workers rest for a moment, and look."""
    for worker in workers:
        worker.stop.set()
        worker.thread.join()
    _agree(own)
    for worker in workers:
        worker.stop.clear()
        worker.thread = threading.Thread(target=worker._work)
        worker.thread.start()


def _agree(own: Daemon) -> None:
    eventually(lambda: disagreements(own) == [], timeout=20, what=f"they agree: {disagreements(own)}")
