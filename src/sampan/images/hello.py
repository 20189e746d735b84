"""The built-in image `hello-world`: one static program, written here instruction by instruction.

An empty store is given this image, so that the first container needs neither a registry nor a compiler. The
program, for x86-64 or AArch64, writes a text to standard output and exits; the image is an archive as `docker
save` writes it, always the same bytes and so ids.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile

from sampan.linux.assembler import GREATER, assembler_for, executable

REFERENCE = "hello-world:latest"
CREATED = "2025-01-01T00:00:00Z"

MESSAGE = """
Ahoy! This is a container, and Sampan has just run it for you.

What has happened on the way here:
 1. The client asked the daemon, over its socket, to run the image
    "hello-world".
 2. The daemon found the image in its store. This one is built in, so nothing
    had to be fetched.
 3. It laid an empty, writable directory over the image's read-only one: the
    root file system of this container alone.
 4. It made the container's surroundings: namespaces to live in, a cgroup that
    counts and limits what it uses, and a network interface with an address of
    its own behind a private bridge.
 5. It started this program, /hello, in there as process 1.
 6. What the program writes, these lines, travelled back to the client. When it
    ends, in a moment, all that was made for it while it ran is taken down.

To go on with a real Debian (as root, with the package debootstrap):
    debootstrap --variant=minbase stable /tmp/debian
    tar -C /tmp/debian -c . | sampan import - debian
    sampan run -it debian bash

README.md takes you further, and `sampan help` lists every command.

"""

_PLATFORMS = {
    "x86_64": {"architecture": "amd64"},
    "aarch64": {"architecture": "arm64", "variant": "v8"},
}


def hello_program(machine: str, message: str = MESSAGE) -> bytes:
    """A static Linux executable that writes `message` and exits with 0, or with 1 when it cannot write.

    Args:
        machine: the kernel's name of the architecture, `x86_64` or `aarch64`.

    Raises:
        Unsupported: for another architecture.
    """
    asm, text = assembler_for(machine, "hello-world"), message.encode()
    asm.address("a", "text")
    asm.move("e", len(text))
    asm.label("write")
    asm.call("write", 1, "a", "e", result="t")
    asm.jump_if("t", GREATER, 0, "written")
    asm.call("exit_group", 1)
    asm.label("written")
    asm.move("u", 0)
    asm.subtract("u", "t")
    asm.subtract("a", "u")
    asm.subtract("e", "t")
    asm.jump_if("e", GREATER, 0, "write")
    asm.call("exit_group", 0)
    asm.data("text", text)
    return executable(asm)


def hello_world_archive(machine: str | None = None) -> bytes:
    """The image as a tar that `load` takes (docker-archive: manifest.json, config, one layer).

    Args:
        machine: the architecture as `uname -m` says it; this machine's when not given.

    Raises:
        Unsupported: for an architecture that the program is not written for.
    """
    machine = machine or platform.machine()
    layer = _tar({"hello": (hello_program(machine), 0o755)})
    layer_digest = hashlib.sha256(layer).hexdigest()
    config = {
        **_PLATFORMS[machine],
        "os": "linux",
        "created": CREATED,
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["/hello"],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_digest}"]},
        "history": [
            {"created": CREATED, "created_by": "COPY hello /hello", "comment": "built in"},
            {"created": CREATED, "created_by": 'CMD ["/hello"]', "empty_layer": True},
        ],
    }
    config_bytes = json.dumps(config, separators=(",", ":"), sort_keys=True).encode()
    config_name = f"{hashlib.sha256(config_bytes).hexdigest()}.json"
    layer_name = f"{layer_digest}/layer.tar"
    manifest = [{"Config": config_name, "RepoTags": [REFERENCE], "Layers": [layer_name]}]
    return _tar(
        {
            config_name: (config_bytes, 0o644),
            layer_name: (layer, 0o644),
            "manifest.json": (json.dumps(manifest).encode(), 0o644),
        }
    )


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """A tar of regular files with everything in it fixed: root's, from the epoch."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (content, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()
