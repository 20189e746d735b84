"""Our own registry on loopback, beside Debian's of `support.registry` and with the same helpers.

    with OwnRegistry(directory) as registry: …         plain HTTP at registry.host (127.0.0.1:port)
    OwnRegistry(directory, auth=True, tls=True)        user USER, password PASSWORD; registry.authority
    OwnRegistry(directory, "--read-only")              further flags of `sampan registry serve`

Its log has every request, so `requests()` works as there.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.registry import PASSWORD, USER, Authority, Registry, free_port
from support.spawning import spawn

SOURCE = Path(__file__).resolve().parent.parent.parent / "src"

__all__ = ["PASSWORD", "USER", "OwnRegistry"]


class OwnRegistry(Registry):
    """A running `sampan registry serve`.

    Args:
        directory: for its data and its log; created when missing.
        flags: further flags.
        auth: demand USER and PASSWORD (Basic).
        tls: serve TLS, with a certificate for 127.0.0.1, localhost and `name`.
        name: the host part of `host`.
        prefix: words before the command line, such as nsenter's.
    """

    def __init__(
        self,
        directory: Path,
        *flags: str,
        auth: bool = False,
        tls: bool = False,
        name: str = "127.0.0.1",
        prefix: Sequence[str] = (),
    ) -> None:
        self.prefix = list(prefix)
        self.directory = directory
        self.auth = auth
        self.port = free_port()
        self.host = f"{name}:{self.port}"
        self.url = f"{'https' if tls else 'http'}://{self.host}"
        self.log = directory / "registry.log"
        self.data = directory / "data"
        self.authority: Authority | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.flags = list(flags)
        directory.mkdir(parents=True, exist_ok=True)
        if auth:
            import bcrypt

            stored = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
            (directory / "htpasswd").write_text(f"{USER}:{stored}\n")
            self.flags += ["--htpasswd", str(directory / "htpasswd")]
        if tls:
            self.authority = Authority(directory / "authority")
            certificate, key = self.authority.issue("server", "IP:127.0.0.1", "DNS:localhost", f"DNS:{name}")
            self.flags += ["--tls-certificate", str(certificate), "--tls-key", str(key)]

    def argv(self, command: str, *flags: str) -> list[str]:
        """A command line of the registry for this directory."""
        program = [sys.executable, "-m", "sampan.registry.server", command]
        return [*self.prefix, *program, "--root", str(self.data), *flags]

    def start(self) -> OwnRegistry:
        """Start, and wait until it answers; nothing when it runs already."""
        if self.process is not None:
            return self
        ready, told = os.pipe()
        with self.log.open("ab") as log:
            self.process = spawn(
                self.argv(
                    "serve",
                    *("--listen", f"127.0.0.1:{self.port}", "--log-level", "debug", "--drain", "5s"),
                    *("--ready-fd", str(told), *self.flags),
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(SOURCE)},
                pass_fds=(told,),
            )
        os.close(told)
        with os.fdopen(ready, "rb") as pipe:
            if pipe.read() != b"ready\n":
                self.process.wait(10)
                pytest.fail(f"the registry does not start:\n{self.log.read_text()[-3000:]}")
        return self

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.process = None

    def signal(self, signum: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(signum)

    def collect(self, *flags: str) -> str:
        """`sampan registry gc` on its directory; what it said."""
        done = subprocess.run(
            self.argv("gc", *flags),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def connect(self) -> socket.socket:
        """A raw connection."""
        return socket.create_connection(("127.0.0.1", self.port), 30)

    def wait_for_log(self, text: str, timeout: float = 20) -> None:
        """Wait until the log has this text."""
        deadline = time.monotonic() + timeout
        while text not in self.log.read_text(errors="replace"):
            assert time.monotonic() < deadline, f"{text!r} is not in the log"
            time.sleep(0.02)

    def requests(self) -> list[str]:
        """What it was asked so far, as `METHOD path status`."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            words = line.partition("sampan.registry.server: ")[2].split()
            if line.split()[1:2] == ["DEBUG"] and len(words) == 7:
                found.append(f"{words[1]} {words[2]} {words[3]}")
        return found
