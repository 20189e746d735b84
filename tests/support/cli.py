"""A command line under test: the real docker client, or ours, against one engine."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from typing import Any

from support.spawning import finished, spawn
from support.terminal import Terminal


@cache
def docker_release() -> tuple[int, ...]:
    """Of the docker client in the path."""
    said = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)\.(\d+)", said)
    assert found is not None, said
    return tuple(map(int, found.groups()))


@dataclass(frozen=True)
class Result:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str
    raw: bytes

    @property
    def lines(self) -> list[str]:
        """Standard output, line by line."""
        return self.out.splitlines()


class Cli:
    """A client program with the options that point it at the engine."""

    def __init__(self, name: str, program: list[str], host: str, environment: dict[str, str]) -> None:
        self.name = name
        self.program = program
        self.host = host
        self.environment = environment

    def argv(self, *arguments: str) -> list[str]:
        """The whole command line."""
        return [*self.program, "-H", self.host, *arguments]

    def __call__(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        code: int | None = 0,
        timeout: float = 60,
        env: dict[str, str] | None = None,
    ) -> Result:
        """Run to the end; `code` is the exit status that it must have, None for any."""
        environment = {**self.environment, **(env or {})}
        returncode, out, err = finished(self.argv(*arguments), stdin, timeout, env=environment)
        result = Result(returncode, out.decode(errors="replace"), err.decode(errors="replace"), out)
        if code is not None:
            said = f"{result.out[-2000:]}{result.err[-2000:]}"
            assert result.code == code, f"{self.name} {' '.join(arguments)}\nexit {result.code}\n{said}"
        return result

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start in the background with pipes; use as a context manager."""
        options.setdefault("stdin", subprocess.PIPE)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        return spawn(self.argv(*arguments), env=self.environment, **options)

    def terminal(self, *arguments: str, rows: int = 24, columns: int = 80) -> Terminal:
        """Start on a terminal of its own; use as a context manager."""
        return Terminal(self.argv(*arguments), self.environment, rows, columns)


def clean_environment(config: str) -> dict[str, str]:
    """This process's environment without what would point a client elsewhere."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "SAMPAN_"))}
    return {**kept, "DOCKER_CONFIG": config, "HOME": config, "TERM": "xterm", "LC_ALL": "C.UTF-8"}
