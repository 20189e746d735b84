"""Contexts from Git: branches, commits, directories, submodules; what a repository cannot reach."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.building.ending import Ending
from sampan.building.errors import BuildCancelled
from sampan.building.git import Repository, _run, clone, inside, is_git, repository
from sampan.errors import InvalidParameter, Unsupported
from support.api import UnixConnection
from support.building import Built, build, context, tidied
from support.engine import Daemon, Engine
from support.machine import eventually
from support.repositories import commit, git, over_http

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs the program git")


class Served:
    """Repositories below a directory, as `git daemon` serves them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"git://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [
                *("git", "daemon", f"--base-path={base}", "--export-all", "--reuseaddr"),
                *("--listen=127.0.0.1", f"--port={self.port}", str(base)),
            ],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

        def listens() -> bool:
            with socket.socket() as tried:
                return tried.connect_ex(("127.0.0.1", self.port)) == 0

        eventually(listens, 30)

    def close(self) -> None:
        os.killpg(self.process.pid, 15)
        self.process.wait(30)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = Served(tmp_path_factory.mktemp("git"))
    yield found
    found.close()


def test_contexts_from_git(engine: Engine, busybox: str, served: Served, tmp_path: Path) -> None:
    commit(served.base / "part", f="of the part")
    main = served.base / "main"
    text = f"FROM {busybox}\nCOPY . /c\nRUN cat /c/f; cd /c; find . -name .git; ls"
    first = commit(main, Dockerfile=text, f="first\n", below__Dockerfile=text, below__f="below\n")
    git(main, "tag", "v1")
    git(main, "submodule", "--quiet", "add", f"{served.url}/part", "part")
    commit(main, f="trunk\n")
    git(main, "checkout", "-qb", "side")
    commit(main, f="side\n")
    git(main, "checkout", "-q", "trunk")

    def built(fragment: str, **query: str) -> list[str]:
        done: Built = build(engine, b"", remote=f"{served.url}/main{fragment}", **query)
        assert not done.error, done.text + done.error
        return done.outputs()[0]

    with tidied(engine):
        assert built("") == ["trunk", "Dockerfile", "below", "f", "part"]
        assert built("#v1:below") == ["below", "Dockerfile", "f"]
        kept = built(f"#{first}", buildargs='{"BUILDKIT_CONTEXT_KEEP_GIT_DIR":"1"}')
        assert kept == ["first", "./.git", "Dockerfile", "below", "f"]
        added = (
            f"FROM {busybox}\nADD {served.url}/main#v1:below /a/\nADD --keep-git-dir {served.url}/part /b\n"
        )
        done = build(engine, context(f"{added}RUN ls -A /a /b"))
        assert done.outputs() == [["/a:", "Dockerfile", "f", "", "/b:", ".git", "f"]], done.error
        ours = engine.sampan("build", f"{served.url}/main#side", env={"HOME": str(tmp_path)})
        assert "\nside\n" in ours.out
        for fragment, message in (
            ("#nope", "no branch, tag or commit is nope"),
            ("#v1:nope", "nope is no directory of the repository"),
        ):
            failed = build(engine, b"", remote=f"{served.url}/main{fragment}")
            assert (failed.status, message in failed.error) == (400, True), failed.error


def test_what_a_repository_cannot_reach(served: Served, tmp_path: Path) -> None:
    host = tmp_path / "host"
    commit(host, secret="s")
    hostile = served.base / "hostile"
    commit(hostile, f="f")
    (hostile / "out").symlink_to(host)
    (hostile / "up").symlink_to("../../../..")
    commit(hostile)
    clone(Repository(f"{served.url}/hostile"), tmp_path / "links", False, Ending())
    for place in (str(host), "out", "up/host", "../host"):
        with pytest.raises(InvalidParameter, match="is no directory of the repository"):
            inside(tmp_path / "links", place)
    git(hostile, "submodule", "--quiet", "add", f"file://{host}", "sub")
    commit(hostile)
    with pytest.raises(InvalidParameter, match="unable to prepare context: git: "):
        clone(Repository(f"{served.url}/hostile"), tmp_path / "file", False, Ending())
    assert not (tmp_path / "file/sub/secret").exists()


def test_by_http(tmp_path: Path) -> None:
    """From a server that speaks Git's protocol, and from one that just has files."""
    base = tmp_path / "base"
    base.mkdir()
    first = commit(base / "main", f="first\n", below__g="")
    commit(base / "part", p="")
    with over_http(base) as urls:
        git(base / "main", "submodule", "--quiet", "add", f"{urls[0]}/part/.git", "part")
        commit(base / "main", f="trunk\n")
        git(base / "main", "update-server-info")
        for number, url in enumerate(urls):
            assert is_git(f"{url}/main/.git#{first}")
            whole = clone(repository(f"{url}/main/.git"), tmp_path / f"whole{number}", False, Ending())
            assert sorted(os.listdir(whole)) == [".gitmodules", "below", "f", "part"]
            assert (os.listdir(whole / "part"), (whole / "f").read_text()) == (["p"], "trunk\n")
        old = clone(repository(f"{urls[0]}/main/.git#{first}:below"), tmp_path / "old", False, Ending())
        assert os.listdir(old) == ["g"] and (old.parent / "f").read_text() == "first\n"
        with pytest.raises(InvalidParameter, match=r"unable to prepare context: git: fatal: .*not found"):
            clone(repository(f"{urls[1]}/nope/.git"), tmp_path / "none", False, Ending())


def test_a_server_that_talks_without_end(tmp_path: Path) -> None:
    """What servers say comes to stderr: it is not the daemon's memory that they fill."""
    chatter = (
        "import os\nfor _ in range(512): os.write(2, b'remote: x\\n' * 6000)\nos.write(2, b'fatal: \\x1b[2J')"
    )
    tracemalloc.start()
    try:
        with pytest.raises(InvalidParameter, match=r"^unable to prepare context: git: fatal: \?\[2J$"):
            _run([sys.executable, "-I", "-S", "-c", f"{chatter}; os._exit(1)"], tmp_path, Ending())
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


def test_an_end_before_the_clones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = Ending()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ending.set()
        with pytest.raises(BuildCancelled):
            clone(Repository(f"git://127.0.0.1:{silent.getsockname()[1]}/x"), tmp_path / "a", False, ending)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="need the program git here"):
        clone(Repository("git://127.0.0.1/x"), tmp_path / "b", False, Ending())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://x.org/a/b.git", Repository("https://x.org/a/b.git")),
        ("github.com/a/b#main", Repository("https://github.com/a/b", "main")),
        ("git@x.org:a/b.git#v1:d/e", Repository("git@x.org:a/b.git", "v1", "d/e")),
        ("ssh://me@x.org:22/a#:d", Repository("ssh://me@x.org:22/a", "", "d")),
    ],
)
def test_urls_of_repositories(text: str, expected: Repository) -> None:
    assert is_git(text) and repository(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "git@x.org:a#-x",
            "git@x.org:a#--upload-pack=x",
            "git@x.org:a#a..b",
            "git@x.org:a#+x",
            "git@x.org:a#x y",
        ),
        *("ssh://-oProxyCommand=x/a", "ssh://-oProxyCommand=x@h/a", "git@-oProxyCommand=x:a", "git@x.org:-a"),
        *("git://h", "git@x.org", "https://h/a\n.git", "git://h/a\x01"),
    ],
)
def test_urls_that_would_be_options(text: str) -> None:
    with pytest.raises(InvalidParameter, match=r"remote:|invalid refspec"):
        repository(text)
    assert not is_git("ext::sh -c x.git") and not is_git("file:///x.git") and not is_git("--x.git")


def test_git_ends_with_the_daemon(own: Daemon) -> None:
    """A server that says nothing would keep it, and the program that it speaks http by."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        connection = UnixConnection(own.socket)
        connection.request("POST", f"/build?remote=http://127.0.0.1:{silent.getsockname()[1]}/x.git")
        server, _ = silent.accept()
        with server:
            server.settimeout(30)
            assert server.recv(1 << 16).startswith(b"GET /x.git/info/refs")
            own.kill9()
            connection.close()
            assert server.recv(1) == b""
    own.start()
