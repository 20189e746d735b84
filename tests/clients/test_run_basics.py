"""`run`: output, input, exit codes, and the options that shape the process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from support.cli import Cli
from support.engine import Engine
from support.machine import eventually, namespace, status_field

Names = Callable[[], str]


def test_output_and_errors_come_back_apart(cli: Cli, busybox: str) -> None:
    done = cli("run", "--rm", busybox, "sh", "-c", "echo out; echo err >&2")
    assert (done.out, done.err) == ("out\n", "err\n")


def test_input_goes_in_and_its_end_too(cli: Cli, busybox: str) -> None:
    assert cli("run", "--rm", "-i", busybox, "cat", stdin=b"some text").raw == b"some text"


def test_a_megabyte_goes_through_unchanged(cli: Cli, busybox: str) -> None:
    data = bytes(range(256)) * 4096
    assert cli("run", "--rm", "-i", busybox, "cat", stdin=data).raw == data


def test_without_i_input_is_empty(cli: Cli, busybox: str) -> None:
    assert cli("run", "--rm", busybox, "sh", "-c", "cat; echo end", stdin=b"unseen").out == "end\n"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["false"], 1),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
    ],
)
def test_exit_status_is_the_programs(cli: Cli, busybox: str, command: list[str], code: int) -> None:
    cli("run", "--rm", busybox, *command, code=code)


@pytest.mark.release28
@pytest.mark.parametrize(
    ("command", "code", "word"),
    [
        (["no-such-program"], 127, "executable file not found in $PATH"),
        (["/no/such/file"], 127, "no such file or directory"),
        (["/etc/plain"], 126, "permission denied"),
        (["/etc"], 126, ""),
    ],
)
def test_what_cannot_be_started(
    cli: Cli, engine: Engine, busybox: str, command: list[str], code: int, word: str
) -> None:
    before = len(engine.api.containers())
    done = cli("run", "--rm", busybox, *command, code=code)
    assert word in done.err
    eventually(lambda: len(engine.api.containers()) == before, what="--rm removes what could not start")


def test_a_missing_image_is_a_clear_error(cli: Cli) -> None:
    done = cli("run", "--rm", "--pull=never", "no-such-image-here", "true", code=125)
    assert "No such image: no-such-image-here:latest" in done.err


@pytest.mark.parametrize(
    "options",
    [
        ["--memory", "lots"],
        ["--network", "no-such-network"],
        ["--ulimit", "colour=3"],
        ["--cap-add", "NO_SUCH_POWER"],
        ["--security-opt", "seccomp=/no/such/file"],
        ["--user", "mallory"],
        ["--sysctl", "kernel.hostname=other", "--uts", "host"],
    ],
    ids=lambda options: options[0],
)
def test_wrong_options_are_refused_and_leave_nothing(
    cli: Cli, engine: Engine, busybox: str, options: list[str]
) -> None:
    before = {container["Id"] for container in engine.api.containers()}
    done = cli("run", "--rm", *options, busybox, "true", code=None)
    assert done.code in (1, 125, 126), done
    assert done.err.strip()
    eventually(lambda: {c["Id"] for c in engine.api.containers()} == before, what="nothing is left")


def test_detached_prints_the_id(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    done = cli("run", "-d", "--name", one, busybox, "sleep", "30")
    assert done.out.strip() == engine.api.inspect(one)["Id"]
    assert len(done.out.strip()) == 64


def test_a_name_is_taken_once(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "--name", one, busybox, "true")
    done = cli("run", "--name", one, busybox, "true", code=125)
    assert f'The container name "/{one}" is already in use' in done.err


def test_rm_leaves_nothing_and_its_absence_leaves_it(
    cli: Cli, engine: Engine, busybox: str, name: Names
) -> None:
    gone, kept = name(), name()
    cli("run", "--rm", "--name", gone, busybox, "true")
    cli("run", "--name", kept, busybox, "true")
    eventually(lambda: engine.api("GET", f"/containers/{gone}/json").status == 404)
    assert engine.api.inspect(kept)["State"]["Status"] == "exited"


def test_cidfile(cli: Cli, engine: Engine, busybox: str, name: Names, tmp_path: Path) -> None:
    one, file = name(), tmp_path / "cid"
    cli("run", "--name", one, "--cidfile", str(file), busybox, "true")
    assert file.read_text() == engine.api.inspect(one)["Id"]
    cli("run", "--rm", "--cidfile", str(file), busybox, "true", code=125)


def test_environment(cli: Cli, busybox: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# a comment\nFROM_FILE=yes\nFROM_HERE\n")
    done = cli(
        *("run", "--rm", "-e", "ONE=1", "-e", "EMPTY=", "-e", "FROM_HERE", "--hostname", "ship"),
        *("--env-file", str(tmp_path / "env"), busybox, "env"),
        env={"FROM_HERE": "here"},
    )
    seen = dict(line.split("=", 1) for line in done.lines)
    assert seen == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME": "ship",
        "HOME": "/root",
        "ONE": "1",
        "EMPTY": "",
        "FROM_FILE": "yes",
        "FROM_HERE": "here",
    }


def test_working_directory_is_made_when_missing(cli: Cli, busybox: str, name: Names, tmp_path: Path) -> None:
    assert cli("run", "--rm", "-w", "/some/where", busybox, "pwd").out == "/some/where\n"
    one, other = name(), name()
    cli("create", "--name", one, "-w", "/../new/./below//", busybox, "ls")
    assert cli("inspect", "-f", "{{.Config.WorkingDir}}", one).out == "/new/below\n"
    assert cli("diff", one).out == "A /new\nA /new/below\n"
    (tmp_path / "file").write_text("")
    cli("cp", str(tmp_path / "file"), f"{one}:/new/below/")
    assert cli("start", "-a", one).out == "file\n"
    refused = cli("create", "--name", other, "-w", "/etc/passwd", busybox, code=1)
    assert "Cannot mkdir: /etc/passwd is not a directory" in refused.err
    assert other not in cli("ps", "-a").out


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("alice", "1000 1000 1000 29 46"),
        ("1000", "1000 1000 1000 29 46"),
        ("bob", "1001 50 50 46"),
        ("4711", "4711 0 0"),
        ("4711:4712", "4711 4712 4712"),
        ("alice:staff", "1000 50 50"),
        ("0", "0 0 0"),
    ],
)
def test_user(cli: Cli, busybox: str, user: str, expected: str) -> None:
    done = cli("run", "--rm", "-u", user, busybox, "sh", "-c", "echo $(id -u) $(id -g) $(id -G)")
    first, *rest = done.out.split()
    assert [first, *rest[:1]] == expected.split()[:2]
    assert set(rest[1:]) == set(expected.split()[2:])


def test_group_add(cli: Cli, busybox: str) -> None:
    done = cli("run", "--rm", "--group-add", "audio", "--group-add", "777", busybox, "id", "-G")
    assert {"29", "777"} <= set(done.out.split())


def test_home_follows_the_user(cli: Cli, busybox: str) -> None:
    assert cli("run", "--rm", "-u", "alice", busybox, "sh", "-c", "echo $HOME").out == "/home/alice\n"


def test_entrypoint(cli: Cli, busybox: str) -> None:
    assert cli("run", "--rm", "--entrypoint", "echo", busybox, "-n", "a", "b").out == "a b"


def test_hostname_is_set_and_written(cli: Cli, busybox: str) -> None:
    done = cli(
        "run", "--rm", "--hostname", "ship", busybox, "sh", "-c", "hostname; cat /etc/hostname /etc/hosts"
    )
    assert done.lines[:2] == ["ship", "ship"]
    assert any(line.split()[1:] == ["ship"] for line in done.lines[2:])


def test_domainname(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--name", one, "--hostname", "ship", "--domainname", "sea.test", busybox, "sleep", "30")
    assert cli("exec", one, "cat", "/proc/sys/kernel/domainname").out == "sea.test\n"


def test_default_hostname_is_the_short_id(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    assert cli("run", "--name", one, busybox, "hostname").out.strip() == engine.api.inspect(one)["Id"][:12]


def test_labels(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "--name", one, "--label", "a=b", "-l", "flag", busybox, "true")
    assert engine.api.inspect(one)["Config"]["Labels"] == {"a": "b", "flag": ""}
    assert one in cli("ps", "-a", "--filter", "label=a=b", "--format", "{{.Names}}").lines


def test_own_namespaces(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    cli("run", "-d", "--name", one, busybox, "sleep", "30")
    pid = engine.api.pid(one)
    for kind in ("mnt", "pid", "net", "ipc", "uts"):
        assert namespace(pid, kind) != namespace("self", kind), kind
    assert status_field(pid, "NSpid").split()[-1] == "1"


def test_signals_are_passed_on(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    script = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.05; done"
    with cli.start("run", "--name", one, busybox, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"caught\n"
    assert process.returncode == 7


def test_sig_proxy_off_keeps_the_container(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    script = "echo ready; sleep 30"
    with cli.start("run", "--sig-proxy=false", "--name", one, busybox, "sh", "-c", script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        process.communicate()
    assert engine.api.inspect(one)["State"]["Running"]


def test_init_reaps_and_passes_the_status_on(cli: Cli, busybox: str) -> None:
    script = "(sleep 0.1 &) ; sleep 0.3; ps -o comm | grep -c sleep; cat /proc/1/comm; exit 3"
    done = cli("run", "--rm", "--init", busybox, "sh", "-c", script, code=3)
    assert done.lines[0] == "0"
    assert "init" in done.lines[1]


def test_many_at_once(cli: Cli, busybox: str) -> None:
    outputs: list[str] = []

    def one(number: int) -> None:
        outputs.append(cli("run", "--rm", busybox, "echo", str(number)).out)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outputs) == [f"{number}\n" for number in range(8)]


def test_a_real_debian(cli: Cli, debian: str) -> None:
    done = cli("run", "--rm", debian, "sh", "-c", "cat /etc/debian_version; dpkg-query -f. -W; id -un")
    assert done.lines[0][0].isalnum()
    assert done.lines[-1].endswith("root")


def test_debian_user_and_setuid(cli: Cli, debian: str) -> None:
    assert cli("run", "--rm", "-u", "nobody", debian, "id", "-un").out == "nobody\n"
    assert cli("run", "--rm", debian, "sh", "-c", "test -u /bin/su && echo setuid").out == "setuid\n"
