"""`sampan-runtime` as another engine would call it."""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sampan
from support.bundles import Box, alive, process

pytestmark = pytest.mark.root

SPECS = Path(__file__).parents[2] / "specs/oci-runtime"


class Command:
    def __init__(self, box: Box) -> None:
        self.box = box
        self.root = box.path / "state"

    def __call__(self, *arguments: str, code: int = 0) -> str:
        # To a file, not a pipe: a created container keeps the caller's streams.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [
                    sys.executable, "-c", "from sampan.runtime.command import main; main()", "--root",
                    str(self.root), *arguments,
                ],
                env={**os.environ, "PYTHONPATH": str(Path(sampan.__file__).parents[1])},
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=30,
            )  # fmt: skip
            output.seek(0)
            text = output.read()
        assert done.returncode == code, text
        return text

    def state(self, name: str) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self("state", name))
        return value


@pytest.fixture
def command() -> Iterator[Command]:
    box = Box()
    command = Command(box)
    yield command
    command("delete", "--force", "one")
    box.close()


def await_status(command: Command, status: str) -> dict[str, Any]:
    deadline = time.monotonic() + 5
    while (state := command.state("one"))["status"] != status:
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    return state


def test_the_whole_life(command: Command) -> None:
    bundle = str(command.box.path)
    pid_file = command.box.path / "pid"
    command.box.config(["sh", "-c", "echo begun > /tmp/begun; exec sleep 60"])
    command("create", "--bundle", bundle, "--pid-file", str(pid_file), "one")
    state = command.state("one")
    assert (state["status"], state["id"], state["bundle"]) == ("created", "one", os.path.realpath(bundle))
    pid = int(pid_file.read_text())
    assert state["pid"] == pid and alive(pid)
    assert not (command.box.rootfs / "tmp/begun").exists()
    assert "already exists" in command("create", "--bundle", bundle, "one", code=1)
    assert "it is created" in command("delete", "one", code=1)
    command("start", "one")
    await_status(command, "running")
    time.sleep(0.1)
    assert (command.box.rootfs / "tmp/begun").exists()
    assert "it is running" in command("start", "one", code=1)
    assert json.loads(command("list", "--format", "json"))[0]["id"] == "one"
    assert "one" in command("list")
    assert "sleep 60" in command("exec", "one", "ps")
    command("exec", "one", "sh", "-c", "exit 5", code=5)
    spec = command.box.path / "process.json"
    spec.write_text(json.dumps(process(["sh", "-c", "echo $X"], env=["X=from file", "PATH=/bin"])))
    assert command("exec", "--process", str(spec), "one") == "from file\n"
    assert "executable file not found" in command("exec", "one", "nope", code=127)
    command("kill", "one", "KILL")
    assert await_status(command, "stopped")["pid"] == 0
    assert "not running" in command("kill", "one", "TERM", code=1)
    command("delete", "one")
    assert "does not exist" in command("state", "one", code=1)


def test_run_in_the_foreground(command: Command) -> None:
    command.box.config(["sh", "-c", "echo hello; exit 3"])
    assert command("run", "--bundle", str(command.box.path), "one", code=3) == "hello\n"
    assert command("list", "--quiet") == ""
    command.box.config(["nope"])
    text = command("run", "--bundle", str(command.box.path), "one", code=127)
    assert 'exec: "nope": executable file not found in $PATH' in text


def test_a_terminal_goes_to_the_console_socket(command: Command) -> None:
    command.box.config(["sh", "-c", "tty; sleep 0.2"], terminal=True)
    path = str(command.box.path / "console")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        bundle = str(command.box.path)
        command("run", "--detach", "--bundle", bundle, "--console-socket", path, "one")
        connection, _ = listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(64, socket.CMSG_SPACE(4))
    master = array.array("i", ancillary[0][2])[0]
    assert b"/dev/" in os.read(master, 100)
    os.close(master)
    assert "needs --console-socket" in command("run", "--bundle", bundle, "two", code=1)


def test_an_id_mapped_mount(command: Command, tmp_path: Path) -> None:
    """As the specification has it: `containerID` is on the disk, `hostID` what the container sees."""
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 4321, 4321)
    mount = {
        "destination": "/m", "type": "bind", "source": str(tmp_path / "theirs"), "options": ["bind", "idmap"],
        "uidMappings": [{"containerID": 4321, "hostID": 0, "size": 1}],
        "gidMappings": [{"containerID": 4321, "hostID": 0, "size": 1}],
    }  # fmt: skip
    path = command.box.path / "config.json"

    def run(code: int = 0) -> str:
        command.box.config(["touch", "/m/new"])
        config = json.loads(path.read_text())
        config["mounts"].append(mount)
        path.write_text(json.dumps(config))
        return command("run", "--bundle", str(command.box.path), "one", code=code)

    run()
    assert (tmp_path / "theirs" / "new").stat().st_uid == 4321
    del mount["gidMappings"]
    assert "id-mapped without uidMappings and gidMappings" in run(1)


def test_features_and_spec(command: Command) -> None:
    assert "linux" in json.loads(command("features"))
    command("spec", "--bundle", str(command.box.path))
    config = json.loads((command.box.path / "config.json").read_text())
    config["process"]["args"] = ["id"]
    config["process"]["env"] = ["PATH=/bin"]
    (command.box.path / "config.json").write_text(json.dumps(config))
    assert "uid=0" in command("run", "--bundle", str(command.box.path), "one")


def test_json_is_valid_against_the_specification(command: Command) -> None:
    import jsonschema
    import referencing

    def schema(name: str) -> Any:
        return json.loads((SPECS / name).read_text())

    resources = [
        (path.name, referencing.Resource.from_contents(schema(path.name), referencing.jsonschema.DRAFT4))
        for path in SPECS.glob("*.json")
    ]
    registry: Any = referencing.Registry().with_resources(resources)

    def check(value: Any, name: str) -> None:
        jsonschema.Draft4Validator(schema(name), registry=registry).validate(value)

    check(json.loads(command("features")), "features-schema.json")
    command("spec", "--bundle", str(command.box.path))
    check(json.loads((command.box.path / "config.json").read_text()), "config-schema.json")
    command.box.config(["sleep", "60"])
    command("create", "--bundle", str(command.box.path), "one")
    check(command.state("one"), "state-schema.json")
