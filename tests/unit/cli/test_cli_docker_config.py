"""The settings of docker's config.json, seen in what a client asks of a daemon and in what it prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from support.unix_http import answering

SOURCE = Path(__file__).parents[3] / "src"
CONTAINER = {
    "Id": "f" * 64,
    "Names": ["/one"],
    "Image": "busybox",
    "Command": "sh",
    "Created": 1,
    "State": "",
}
IMAGE = {"Id": f"sha256:{'e' * 64}", "RepoTags": ["busybox:latest"], "Created": 1, "Size": 5}
ANSWERS: dict[str, Any] = {
    "/containers/json": [CONTAINER],
    "/images/json": [IMAGE],
    "/containers/create": {"Id": "f" * 64, "Warnings": []},
    "/containers/prune": {"ContainersDeleted": None, "SpaceReclaimed": 0},
}


class Seen:
    """A daemon that remembers what it was asked."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.url = f"unix://{home}/sock"

    def config(self, **members: Any) -> None:
        """Write config.json."""
        (self.home / ".docker").mkdir(exist_ok=True)
        (self.home / ".docker/config.json").write_text(json.dumps(members))

    def __call__(self, *words: str, code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        """Run our client."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "SAMPAN_"))}
        done = subprocess.run(
            [sys.executable, "-m", "sampan.cli", *words],
            env={**kept, "HOME": str(self.home), "PYTHONPATH": str(SOURCE), "SAMPAN_HOST": self.url, **more},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Seen]:
    found = Seen(tmp_path)

    def answer(target: str, headers: Message, body: bytes) -> object:
        path = target.split("?")[0].split("/", 2)[2]
        found.requests.append((target, dict(headers), json.loads(body) if body else None))
        return ANSWERS.get(f"/{path}", {})

    with answering(tmp_path / "sock", answer):
        yield found


def test_formats(seen: Seen) -> None:
    seen.config(psFormat="{{.Names}}!", imagesFormat="table {{.Repository}}")
    assert seen("ps").stdout == "one!\n"
    assert seen("ps", "-q").stdout == "f" * 12 + "\n"
    assert seen("ps", "--format", "{{.ID}}").stdout == "f" * 12 + "\n"
    assert seen("images").stdout == "REPOSITORY\nbusybox\n"
    assert seen("images", "-q").stdout == "e" * 12 + "\n"


def test_headers(seen: Seen) -> None:
    seen.config(HttpHeaders={"X-Me": "1", "Host": "evil", "content-length": "7", "User-Agent": "evil"})
    seen("ps")
    headers = seen.requests[-1][1]
    assert headers["X-Me"] == "1"
    assert "evil" not in str(headers) and "Content-Length" not in headers
    seen("ps", DOCKER_CUSTOM_HEADERS='A=b,"C=d,e"')
    headers = seen.requests[-1][1]
    assert (headers["A"], headers["C"]) == ("b", "d,e") and "X-Me" not in headers
    said = seen("ps", code=1, DOCKER_CUSTOM_HEADERS="=A").stderr
    assert "value contains a key=value pair with an empty key: '=A'" in said
    seen.config(HttpHeaders={"X": "a\r\nEvil: yes"})
    assert "invalid HTTP header" in seen("ps", code=1).stderr


def test_proxies(seen: Seen) -> None:
    both = {"httpProxy": "http://p:1", "noProxy": "localhost"}
    seen.config(proxies={"default": both, seen.url: {"httpsProxy": "http://mine:2"}})
    seen("create", "busybox")
    assert seen.requests[-1][2]["Env"] == ["HTTPS_PROXY=http://mine:2", "https_proxy=http://mine:2"]
    seen.config(proxies={"default": both})
    seen("create", "-e", "HTTP_PROXY=own", "busybox")
    env = seen.requests[-1][2]["Env"]
    assert env == ["HTTP_PROXY=own", "http_proxy=http://p:1", "NO_PROXY=localhost", "no_proxy=localhost"]


def test_filters_of_prune(seen: Seen) -> None:
    seen.config(pruneFilters=["label!=keep", "label=x", "until=24h", "nonsense"])
    seen("container", "prune", "-f", "--filter", "label!=x")
    query = seen.requests[-1][0]
    assert "keep" in query and "24h" in query and "nonsense" not in query and "%22label%22" not in query


def test_detach_keys(seen: Seen) -> None:
    seen.config(detachKeys="ctrl-nonsense")
    said = seen("run", "-d", "busybox", code=125).stderr
    assert "invalid escape keys (ctrl-nonsense)" in said
    assert not seen.requests
    seen("run", "-d", "--detach-keys", "ctrl-a,x", "busybox")


def test_a_file_that_is_none(seen: Seen) -> None:
    (seen.home / ".docker").mkdir()
    (seen.home / ".docker/config.json").write_text("{bad")
    done = seen("ps", "-q")
    assert done.stdout == "f" * 12 + "\n"
    assert done.stderr.startswith("WARNING: Error loading config file: ")
    seen.config(psFormat=5)
    assert "psFormat" in seen("ps", "-q").stderr
    seen.config(aliases={"x": "ps"})
    assert seen("ps", code=1).stderr.startswith('not allowed to alias "x"')


def test_content_trust_is_refused_not_ignored(seen: Seen) -> None:
    for done in (
        seen("create", "--disable-content-trust=false", "busybox", code=125),
        seen("pull", "busybox", code=1, DOCKER_CONTENT_TRUST="1"),
    ):
        assert "Notary's signatures cannot be checked" in done.stderr
    assert not seen.requests
