"""Engines under test: a sampand that a test starts, restarts and kills, or one that is there already."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.api import Api
from support.cli import Cli, Result, clean_environment
from support.images import import_busybox, import_debian
from support.machine import EMULATED, LOOK_S, eventually, free_subnet
from support.spawning import RECORDING, SOURCE, TOKEN, spawn

START_S = 180 if EMULATED else 30
RUNNING: list[Engine] = []  # all engines that tests use at the moment
_numbers = itertools.count(1)


class Engine:
    """An engine that answers on a unix socket."""

    def __init__(self, socket: str, config: Path) -> None:
        self.socket = socket
        self.host = f"unix://{socket}"
        self.api = Api(socket)
        config.mkdir(parents=True, exist_ok=True)
        environment = clean_environment(str(config))
        ours = {**environment, "PYTHONPATH": str(SOURCE)}
        program = [sys.executable, "-m", "sampan.cli"]
        self.sampan = Cli("sampan", program, self.host, ours)
        self.docker = Cli("docker", ["docker"], self.host, environment)
        if EMULATED:  # where docker's takes a second to start
            self.docker = self.sampan
        self._images: set[str] = set()

    @property
    def busybox(self) -> str:
        """An image with a static busybox, all its applets, and a few users and groups."""
        if "busybox" not in self._images:
            import_busybox(self.api)
            self._images.add("busybox")
        return "busybox"

    @property
    def debian(self) -> str:
        """An image with a real Debian of the smallest kind."""
        if "debian" not in self._images:
            import_debian(self.api)
            self._images.add("debian")
        return "debian"

    def log_text(self) -> str:
        """What the engine has logged, where we can see it."""
        return ""

    def cli(self, name: str) -> Cli:
        """The docker client, or ours."""
        return {"docker": self.docker, "sampan": self.sampan}[name]


class Daemon(Engine):
    """One sampand of our own, with its own roots, bridge and subnet."""

    def __init__(self, base: Path, *flags: str, config: str = "{}") -> None:
        number = next(_numbers)
        self.base = base
        self.data_root = base / "data"
        self.exec_root = base / "exec"
        self.pidfile = base / "sampand.pid"
        self.log = base / "sampand.log"
        self.answers_file = base / "answers.jsonl"  # what support.contract looks at in the end
        self.bridge = f"smpt{os.getpid() % 10**6}x{number}"
        self.bip = free_subnet()
        self.flags = flags
        self.nursed = True  # whether its process may be a fork: see support.nursery
        self.wrapper: list[str] = []  # a command that runs the daemon
        self.before: Callable[[], object] | None = None  # what its process does first; pickle must know it
        self.process: subprocess.Popen[bytes] | None = None
        base.mkdir(parents=True, exist_ok=True)
        super().__init__(str(base / "s.sock"), base / "client")
        self.arguments = [
            *("--data-root", str(self.data_root), "--exec-root", str(self.exec_root)),
            *("--pidfile", str(self.pidfile), "--host", self.host),
            *("--bridge", self.bridge, "--bip", self.bip, "--log-level", "debug"),
            *("--cgroup-parent", f"/{TOKEN}"),
            *flags,
        ]
        (base / "daemon.json").write_text(config)  # never the machine's own
        self.arguments += ["--config-file", str(base / "daemon.json")]

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self.process is not None
        return self.process.pid

    def spawn(self) -> None:
        """Start the process without waiting for its answer."""
        assert self.process is None
        environment = {
            **os.environ,
            "PYTHONPATH": f"{RECORDING}{os.pathsep}{SOURCE}",
            "SAMPAN_TEST": TOKEN,
        }
        if not EMULATED:
            environment["SAMPAN_RECORD"] = str(self.answers_file)
        with self.log.open("ab") as log, open(os.devnull) as nothing:
            start = spawn if self.nursed else subprocess.Popen
            self.process = start(
                [*self.wrapper, sys.executable, "-m", "sampan.daemon", *self.arguments],
                stdin=nothing,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
                preexec_fn=self.before,
            )

    def start(self, timeout: float = START_S) -> Daemon:
        """Start, and wait until it answers."""
        self.spawn()
        assert self.process is not None
        deadline = time.monotonic() + timeout
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                text = self.log_text()
                self.kill9()
                pytest.fail(f"sampand does not answer:\n{text[-4000:]}", pytrace=False)
            time.sleep(LOOK_S)
        if self not in RUNNING:
            RUNNING.append(self)
        return self

    def answers(self) -> bool:
        """Whether the API answers."""
        try:
            return self.api("GET", "/_ping", timeout=5).status == 200
        except OSError:
            return False

    def stop(self, timeout: float = 30) -> int:
        """SIGTERM, and wait; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            text = self.log_text()
            self.kill9()
            pytest.fail(f"sampand does not end on SIGTERM:\n{text[-4000:]}", pytrace=False)
        self.process = None
        return code

    def kill9(self) -> None:
        """End it without a chance to do anything."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        """Stop cleanly and start again; containers live on."""
        assert self.stop() == 0
        self.start()

    def end(self) -> None:
        """Remove every container, then stop: nothing may be left."""
        if self.process is None or self.process.poll() is not None:
            self.process = None
            self.start()  # only a daemon can tidy up
        for container in self.api.containers():
            self.api.remove(container["Id"])
        left_networks(self)
        code = self.stop()
        assert code == 0, f"sampand ended with {code}:\n{self.log_text()[-4000:]}"
        if self in RUNNING:
            RUNNING.remove(self)
        self._remove_bridge()

    def _remove_bridge(self) -> None:
        """Bridge and table outlive the daemon by design, as containers may; a port may not be left."""
        ports = Path(f"/sys/class/net/{self.bridge}/brif")
        if ports.exists():
            eventually(lambda: not os.listdir(ports), what=f"every veth leaves {self.bridge}")
            subprocess.run(["ip", "link", "delete", self.bridge], check=True)
        table = f"sampan-{self.bridge}"
        subprocess.run(["nft", "delete", "table", "ip", table], stderr=subprocess.DEVNULL, check=False)

    def log_text(self) -> str:
        """Everything the daemon has written to stderr."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def copy_source(target: Path) -> None:
    """Copy our code with its bytecode: without, each process there compiles what it imports, for seconds."""
    half_written = shutil.ignore_patterns("*.pyc.*")
    shutil.copytree(SOURCE, target, ignore=half_written)


def left_containers(engine: Engine) -> list[str]:
    """Remove what a test module left behind; its names."""
    left = []
    for container in engine.api.containers():
        left.append(f"{container['Names'][0]} ({container['Status']})")
        engine.api.remove(container["Id"])
    return left


def left_networks(engine: Engine) -> list[str]:
    """Remove the networks that a test module left behind; their names."""
    left = []
    for network in engine.api.get('/networks?filters={"type":["custom"]}'):
        left.append(network["Name"])
        engine.api("DELETE", f"/networks/{network['Id']}")
    return left


__all__ = [
    "RUNNING",
    "TOKEN",
    "Cli",
    "Daemon",
    "Engine",
    "Result",
    "copy_source",
    "left_containers",
    "left_networks",
]
