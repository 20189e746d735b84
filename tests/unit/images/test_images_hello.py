"""The built-in image: its programs run or decode, its bytes and ids are always the same."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import platform
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from sampan.errors import Unsupported
from sampan.images.hello import MESSAGE, hello_program, hello_world_archive

EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")


def write_program(folder: Path, content: bytes) -> Path:
    program = folder / "hello"
    program.write_bytes(content)
    program.chmod(0o755)
    return program


@pytest.mark.skipif(platform.machine() != "x86_64", reason="needs an x86-64 machine")
class TestOnX8664:
    def test_prints_the_message_and_exits_with_0(self, tmp_path: Path) -> None:
        done = subprocess.run(
            [write_program(tmp_path, hello_program("x86_64"))], capture_output=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, MESSAGE.encode(), b"")

    def test_goes_on_after_a_partial_write(self, tmp_path: Path) -> None:
        text = "0123456789abcdef" * 4000  # 64,000 bytes: more than the small pipe holds
        program = write_program(tmp_path, hello_program("x86_64", text))
        reading, writing = os.pipe()
        fcntl.fcntl(writing, 1031, 4096)  # F_SETPIPE_SZ
        with subprocess.Popen([program], stdout=writing) as process, open(reading, "rb", buffering=0) as out:
            os.close(writing)
            received = b"".join(iter(lambda: out.read(1000), b""))
        assert (process.returncode, received) == (0, text.encode())

    def test_says_so_when_it_cannot_write(self, tmp_path: Path) -> None:
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(
                [write_program(tmp_path, hello_program("x86_64"))], stdout=full, check=False
            )
        assert done.returncode == 1


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 62), ("aarch64", 183)])
def test_is_a_small_static_elf_whose_entry_lies_in_its_segment(machine: str, number: int) -> None:
    program = hello_program(machine)
    assert len(program) < 4096
    assert program[:7] == b"\x7fELF\x02\x01\x01"
    kind, elf_machine, _, entry, phoff = struct.unpack_from("<HHIQQ", program, 16)
    assert (kind, elf_machine) == (2, number)
    p_type, flags, offset, address, _, file_size, memory_size, align = struct.unpack_from(
        "<IIQQQQQQ", program, phoff
    )
    assert (p_type, flags, offset) == (1, 5, 0)
    assert file_size == memory_size == len(program)
    assert address <= entry < address + file_size
    assert address % align == offset % align


@pytest.mark.skipif(
    EMULATOR is None, reason="needs the program qemu-aarch64-static (Debian: qemu-user-static)"
)
def test_aarch64_code_runs(tmp_path: Path) -> None:
    assert EMULATOR is not None
    program = write_program(tmp_path, hello_program("aarch64", "Ahoy\n"))
    done = subprocess.run([EMULATOR, program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Ahoy\n")
    with Path("/dev/full").open("wb") as full:
        assert subprocess.run([EMULATOR, program], stdout=full, check=False).returncode == 1


def test_another_machine_is_refused_by_name() -> None:
    with pytest.raises(Unsupported, match="hello-world is offered on x86_64 and aarch64, not on sparc64"):
        hello_program("sparc64")


@pytest.mark.parametrize(("machine", "architecture"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_archive_is_consistent_and_the_same_each_time(machine: str, architecture: str) -> None:
    archive = hello_world_archive(machine)
    assert archive == hello_world_archive(machine)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    (image,) = json.loads(files["manifest.json"])
    assert image["RepoTags"] == ["hello-world:latest"]
    config_bytes = files[image["Config"]]
    assert image["Config"] == hashlib.sha256(config_bytes).hexdigest() + ".json"
    config = json.loads(config_bytes)
    assert (config["architecture"], config["os"]) == (architecture, "linux")
    assert config["config"]["Cmd"] == ["/hello"]
    (layer,) = (files[name] for name in image["Layers"])
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    assert len([entry for entry in config["history"] if not entry.get("empty_layer")]) == 1
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        (member,) = tar.getmembers()
        assert (member.name, member.mode, member.uid) == ("hello", 0o755, 0)


def test_message_fits_a_terminal() -> None:
    assert max(len(line) for line in MESSAGE.splitlines()) <= 80
