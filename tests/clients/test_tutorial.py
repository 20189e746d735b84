"""docs/tutorial, as the built site has it: every command runs, and answers as shown (`…` is anything)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import pages
from support.engine import Daemon
from support.own_registry import OwnRegistry

# What people are taught about containers, in the order in which they are: each is done on the page.
TAUGHT = r"""
sampan --version
sampan version
sampan info
sampan run .*hello-world
sampan search
sampan pull (\S+ )?\w+:[\d.]+
sampan images
sampan image ls
sampan save -o
sampan save \S+ >
sampan save \S+ \| gzip >
sampan load --input
sampan load -i
sampan load <
sampan rmi
sampan image rm
sampan run \w+ echo 'Hello world'
sampan run -it .* sh
sampan run -d
sampan logs
sampan ps$
sampan ps -a
sampan ps -l
sampan create
sampan start [a-z]+$
sampan start -ai
sampan restart
sampan stop
sampan kill
sampan exec -it \w+ sh
sampan export \w+ >
cat \S+ \| sampan import - \S+:\S+
sampan rm \w+
sampan run -tid --net=bridge
sampan run -tid --net=host
sampan run -tid --net=container:
sampan run -tid --net=none
sampan volume create my-vol
sampan volume ls
sampan volume inspect my-vol
sampan run .*-v my-vol:/opt/app
sampan run .*-v my-vol:/opt/app:ro
sampan run .*-v "\$PWD/\w+:/\w+"
sampan volume rm
sampan run .*--volumes-from
sampan system df
sampan stats
sampan container ls --all
sampan cp .*clock:
sampan doctor
"""


@pytest.fixture
def daemon_of_the_page(make_daemon: Callable[..., Daemon], tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose Docker Hub is a mirror on loopback, with two versions of busybox in it."""
    with OwnRegistry(tmp_path / "hub") as hub:
        made = make_daemon(config=f'{{"registry-mirrors": ["{hub.url}"]}}').start()
        name = f"{hub.host}/library/{made.busybox}"
        made.docker("create", "--name", "older", "busybox")
        made.docker("commit", "older", f"{name}:1.36")
        made.docker("rm", "older")
        made.docker("tag", "busybox", name)
        made.docker("push", "--all-tags", name)
        made.docker("rmi", name, f"{name}:1.36", "busybox")
        yield made
        made.end()


def test_both_languages_have_the_same_commands() -> None:
    assert pages.blocks("tutorial/en") == pages.blocks("tutorial/zh")
    assert len(pages.commands("tutorial/en")) > 100
    assert pages.page("tutorial/zh").attributes["lang"] == "zh-CN"


@pytest.mark.parametrize("taught", TAUGHT.split("\n")[1:-1])
def test_everything_that_is_taught_is_done(taught: str) -> None:
    assert any(re.search(taught, one.command) for one in pages.commands("tutorial/en"))


@pytest.mark.release28
@pytest.mark.timeout(240)
@pytest.mark.parametrize("client", ["sampan", "docker"])
def test_every_command(client: str, daemon_of_the_page: Daemon, tmp_path: Path) -> None:
    """With either client; `registry` and `doctor` are ours alone."""
    pages.run("tutorial/en", daemon_of_the_page.sampan, daemon_of_the_page.cli(client), tmp_path)
