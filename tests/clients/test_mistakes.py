"""What a newcomer mistypes: each mistake is one plain line, docker's exit code, and nothing half-made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.cli import Cli
from support.engine import Engine

Names = Callable[[], str]

# What is typed, the exit code, and what the first line of the complaint must say, program names left out.
RUN: list[tuple[list[str], int, str]] = [
    (["--frob", "busybox"], 125, "unknown flag: --frob"),
    (["-Q", "busybox"], 125, "unknown shorthand flag: 'Q' in -Q"),
    (["Bad:Image:Name"], 125, "invalid reference format: repository name (library/Bad) must be lowercase"),
    (["UPPER"], 125, "invalid reference format: repository name (library/UPPER) must be lowercase"),
    (["-m", "5x", "busybox"], 125, 'invalid argument "5x" for "-m, --memory" flag'),
    (["-m", "5k", "busybox"], 125, "Error response from daemon: Minimum memory limit allowed is 6MB"),
    (["--cpus", "1000", "busybox"], 125, "ange of CPUs is from 0.01 to"),
    (["-v", "some/where:/x", "busybox"], 125, "includes invalid characters for a local volume name"),
    (["-v", "/a:relative", "busybox"], 125, "invalid mount path: 'relative' mount path must be absolute"),
    (["-v", "/a:/b:/c:/d", "busybox"], 125, "invalid spec: /a:/b:/c:/d: too many colons"),
    (["-v", "/a:/b:rx", "busybox"], 125, "invalid mode: rx"),
    (["--mount", "type=bind,src=/no-such-place,dst=/x", "busybox"], 125, "bind source path does not exist"),
    (["--mount", "target", "busybox"], 125, 'invalid argument "target" for "--mount" flag'),
    (["-w", "relative", "busybox"], 125, "the working directory 'relative' is invalid"),
    (["--name", "bad name", "busybox"], 125, "Invalid container name (bad name), only [a-zA-Z0-9]"),
    (["busybox", "no-such-program"], 127, 'exec: "no-such-program": executable file not found in $PATH'),
    (["busybox", "/etc"], 126, 'exec: "/etc": '),
    (["busybox", "/etc/plain"], 126, 'exec: "/etc/plain": permission denied'),
    (["-u", "stranger", "busybox"], 125, "unable to find user stranger: no matching entries in passwd file"),
    (["--network", "no-such-net", "busybox"], 125, "daemon: network no-such-net not found"),
    (["--network", "container:nobody", "busybox"], 125, "daemon: No such container: nobody"),
    (["--volumes-from", "nobody", "busybox"], 125, "daemon: No such container: nobody"),
    (["--env-file", "/no-such-file", "busybox"], 125, "open /no-such-file: no such file or directory"),
    (["-p", "abc:80", "busybox"], 125, "abc"),
    (["--restart", "sometimes", "busybox"], 125, "invalid restart policy"),
    (["--rm", "--restart", "always", "busybox"], 125, "cannot specify both --restart and --rm"),
    (["-it", "busybox"], 1, "the input device is not a TTY"),
    (["-d", "-a", "stdout", "busybox"], 1, "conflicting options: cannot specify both --attach and --detach"),
    (["--cap-add", "NOSUCH", "busybox"], 125, "NOSUCH"),
    (["--security-opt", "nosuch", "busybox"], 125, 'Invalid --security-opt: "nosuch"'),
    (["--device", "/dev/nosuch", "busybox"], 127, "/dev/nosuch"),
    (["--mac-address", "zz", "busybox"], 125, "zz is not a valid mac address"),
    (["--pull", "sometimes", "busybox"], 125, "invalid pull option: 'sometimes'"),
    (["--pull", "never", "no-such-image"], 125, "No such image: no-such-image:latest"),
    (["--entrypoint", "", "busybox"], 125, ""),
]  # fmt: skip

OTHER: list[tuple[list[str], int, str]] = [
    (["frobnicate"], 1, "unknown command: NAME frobnicate"),
    (["container", "frob"], 1, "unknown command: NAME container frob"),
    (["run"], 1, "'NAME run' requires at least 1 argument"),
    (["create", "--frob", "busybox"], 125, "unknown flag: --frob"),
    (["exec", "RUNNING"], 1, "'NAME exec' requires at least 2 arguments"),
    (["exec", "RUNNING", "no-such-program"], 127, 'exec: "no-such-program": executable file not found'),
    (["exec", "-u", "stranger", "RUNNING", "true"], 126, "unable to find user stranger"),
    (["exec", "STOPPED", "true"], 1, "is not running"),
    (["exec", "nobody", "true"], 1, "daemon: No such container: nobody"),
    (["start", "nobody"], 1, "daemon: No such container: nobody"),
    (["stop", "nobody"], 1, "daemon: No such container: nobody"),
    (["stop", "-t", "abc", "RUNNING"], 125, 'invalid argument "abc" for "-t, --t'),
    (["kill", "STOPPED"], 1, "is not running"),
    (["kill", "-s", "FOO", "RUNNING"], 1, "nvalid signal: FOO"),
    (["rm", "RUNNING"], 1, "container is running: stop the container before removing or force remove"),
    (["rm", "nobody"], 1, "daemon: No such container: nobody"),
    (["create", "--name", "STOPPED", "busybox"], 1, "is already in use by container"),
    (["rename", "RUNNING", "STOPPED"], 1, "is already in use by container"),
    (["pause", "STOPPED"], 1, "is not running"),
    (["unpause", "RUNNING"], 1, "is not paused"),
    (["attach", "STOPPED"], 1, "cannot attach to a stopped container, start it first"),
    (["logs", "nobody"], 1, "daemon: No such container: nobody"),
    (["logs", "--since", "abc", "RUNNING"], 1, 'failed to parse value as time or duration: "abc"'),
    (["events", "--since", "abc"], 1, 'failed to parse value as time or duration: "abc"'),
    (["inspect", "nobody"], 1, "Error: No such object: nobody"),
    (["rmi", "no-such-image"], 1, "Error response from daemon: No such image: no-such-image"),
    (["tag", "busybox", "UPPER"], 1, "must be lowercase"),
    (["load", "-i", "/no-such-file"], 1, "open /no-such-file: no such file or directory"),
    (["volume", "rm", "nothing"], 1, "Error response from daemon: get nothing: no such volume"),
    (["network", "inspect", "nothing"], 1, "Error response from daemon: network nothing not found"),
    (["ps", "--format", "{{.ID"], 1, "unclosed action"),
    (["ps", "--filter", "foo=bar"], 1, "nvalid filter 'foo'"),
    (["ps", "extra"], 1, "'NAME ps' accepts no arguments"),
]  # fmt: skip


@pytest.fixture
def pair(engine: Engine, busybox: str, name: Names) -> Iterator[dict[str, str]]:
    """A container that runs and one that does not."""
    made = {"RUNNING": name(), "STOPPED": name()}
    engine.docker("run", "-d", "--name", made["RUNNING"], busybox, "sleep", "100")
    engine.docker("create", "--name", made["STOPPED"], busybox, "true")
    yield made


def complaint(cli: Cli, said: str) -> str:
    """The first line of an error, which is followed by nothing but usage and hints."""
    first, _, rest = said.partition("\n")
    assert "Traceback" not in said
    for line in filter(None, rest.splitlines()):
        assert line.startswith(("Usage: ", "Run '", "See '", "Error: failed to ")), said
    return first.replace(cli.name, "NAME")


@pytest.mark.release28
@pytest.mark.parametrize(("words", "code", "text"), RUN, ids=[" ".join(words) for words, _, _ in RUN])
def test_run(
    engine: Engine, cli: Cli, busybox: str, name: Names, words: list[str], code: int, text: str
) -> None:
    given = words if "--name" in words else ["--name", name(), *words]
    before = {container["Id"] for container in engine.api.containers()}
    done = cli("run", *given, code=code)
    assert text in complaint(cli, done.err)
    left = [c for c in engine.api.containers() if c["Id"] not in before]
    for container in left:
        engine.api.remove(container["Id"])
    if code == 125 and "stranger" not in words:
        assert left == [], "a command line that is refused makes no container"


@pytest.mark.release28
@pytest.mark.parametrize(("words", "code", "text"), OTHER, ids=[" ".join(words) for words, _, _ in OTHER])
def test_other_commands(cli: Cli, pair: dict[str, str], words: list[str], code: int, text: str) -> None:
    done = cli(*[pair.get(word, word) for word in words], code=code)
    assert text in complaint(cli, done.err or done.out)


def test_what_is_not_there_is_named(engine: Engine, busybox: str) -> None:
    answer = engine.api("GET", "/no/such/page")
    assert answer.status == 404
    assert answer.message == "page not found: this version does not offer GET /no/such/page"
