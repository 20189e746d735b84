"""What could follow a half-written command line, as far as no daemon is needed to know it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from sampan.cli.app import dispatch
from sampan.cli.completing.answers import complete
from sampan.cli.completing.scripts import SHELLS, script
from sampan.cli.guessing import ABSENT
from sampan.cli.tree import GROUPS, TOP


@pytest.fixture(autouse=True)
def no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not even the machine's own."""
    monkeypatch.setenv("SAMPAN_HOST", f"unix://{tmp_path}/nowhere")


def values(*words: str) -> list[str]:
    return [value for value, _ in complete(words)[0]]


def test_commands_and_groups() -> None:
    assert values("ru") == ["run"]
    assert "container" in values("") and "help" in values("") and "__complete" not in values("")
    assert values("help", "contai") == ["container"]
    assert values("container", "l") == ["logs", "ls"]
    assert "dial-stdio" not in values("system", "")
    assert values("--debug", "-l", "info", "ver") == ["version"]
    assert values("frobnicate", "") == []


def test_flags() -> None:
    assert values("ps", "--no") == ["--no-trunc"]
    assert values("--conte") == ["--context"]
    assert "--help" in values("ps", "--") and "-h" in values("run", "-")
    assert "--dns-opt" not in values("run", "--dns")  # hidden
    assert values("run", "busybox", "--netw") == []  # the container's own
    assert values("rm", "x", "--for") == ["--force"]
    assert values("rm", "--", "--for") == []


def test_values_of_flags() -> None:
    assert values("run", "--restart", "on") == ["on-failure"]
    assert values("run", "--restart=on") == ["on-failure"]
    assert values("run", "-it", "--pull", "a") == ["always"]
    assert values("kill", "-s", "TE") == ["TERM"]
    assert values("kill", "-fs", "TE") == []  # no such flag
    assert values("ps", "-f", "sta") == ["status="]
    assert values("--log-level", "w") == ["warn"]
    assert values("run", "--cap-add", "NET_A") == ["NET_ADMIN"]


def test_what_the_shell_is_told() -> None:
    assert complete(["load", "-i", ""]) == ([], 0)
    assert complete(["ps", "-f", "stat"])[1] == 2 | 4
    assert complete(["run", "busybox", ""]) == ([], 0)
    assert complete(["ps", ""]) == ([], 4)


def test_without_a_daemon_there_is_nothing_and_none_is_started() -> None:
    assert complete(["rm", ""]) == ([], 1)


def test_the_hidden_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(["__complete", "ru"]) == 0
    assert capsys.readouterr().out == "run\tCreate and run a new container from an image\n:4\n"
    assert dispatch(["__completeNoDesc", "ru"]) == 0
    assert capsys.readouterr().out == "run\n:4\n"


@pytest.mark.parametrize("shell", sorted(SHELLS))
def test_a_script_is_one(shell: str) -> None:
    text = script(shell, "docker", False)
    assert "@" not in text.replace("$@", "").replace("[@", "").replace("(@", "").replace("{(@", "")
    assert "docker" in text and "__completeNoDesc" in text
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    option = "--no-execute" if shell == "fish" else "-n"
    done = subprocess.run(
        [program, option], input=text, capture_output=True, text=True, env=os.environ, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pss"], "(did you mean ps?)"),
        (["rnu"], "(did you mean run?)"),
        (["sp"], "(did you mean ps?)"),
        (["container", "rnu"], "(did you mean run?)"),
        (["buildx", "build", "."], "unknown command: sampan buildx: BuildKit is not offered"),
        (["swarm", "init"], "unknown command: sampan swarm: Swarm is not offered"),
        (["compose", "up"], "unknown command: sampan compose: install docker's plugin compose"),
        (["container", "lss"], "(did you mean ls?)"),
        (["ps", "--formt", "x"], "unknown flag: --formt (did you mean --format?)"),
        (["--hst", "x", "ps"], "unknown flag: --hst (did you mean --host?)"),
        (["run", "--nam", "x"], "unknown flag: --nam (did you mean --name?)"),
    ],
)
def test_did_you_mean(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch(words) != 0
    assert said in capsys.readouterr().err


def test_what_is_said_to_be_absent_is() -> None:
    assert not ABSENT.keys() & {*TOP, *GROUPS, *GROUPS["image"][1]}
