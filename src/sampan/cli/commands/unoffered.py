"""Groups of docker's that there is nothing behind: they say in one line what is missing, and what to do."""

from __future__ import annotations

from sampan.cli.failures import CommandError
from sampan.cli.flags import Command, Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values

CHECKPOINTS = (
    "checkpoints are not offered: they need CRIU, and dockerd has them as an experiment only; "
    "`sampan pause` holds a container's processes, `sampan commit` keeps its files"
)
TRUST = (
    "content trust is not offered: Notary v1 behind it is no longer maintained; "
    "name images by digest (IMAGE@sha256:…), or sign them with cosign or notation"
)
_DIRECTORY = Flag("checkpoint-dir", "string", "Where checkpoints are kept")


def _refused(
    path: str,
    usage: str,
    summary: str,
    why: str,
    flags: tuple[Flag, ...] = (),
    least: int = 1,
    most: int | None = 1,
    aliases: tuple[str, ...] = (),
) -> Command:
    def run(app: App, values: Values, arguments: list[str]) -> int:
        raise CommandError(why, 1)

    return Command(path, usage, summary, flags, run, least=least, most=most, aliases=aliases)


COMMANDS = {
    "checkpoint create": _refused(
        "checkpoint create",
        "[OPTIONS] CONTAINER CHECKPOINT",
        "Create a checkpoint from a running container",
        CHECKPOINTS,
        (_DIRECTORY, Flag("leave-running", "bool", "Leave the container running")),
        2,
        2,
    ),
    "checkpoint ls": _refused(
        "checkpoint ls",
        "[OPTIONS] CONTAINER",
        "List checkpoints for a container",
        CHECKPOINTS,
        (_DIRECTORY,),
        aliases=("checkpoint ls", "checkpoint list"),
    ),
    "checkpoint rm": _refused(
        "checkpoint rm",
        "[OPTIONS] CONTAINER CHECKPOINT",
        "Remove a checkpoint",
        CHECKPOINTS,
        (_DIRECTORY,),
        2,
        2,
        ("checkpoint rm", "checkpoint remove"),
    ),
    "trust inspect": _refused(
        "trust inspect",
        "IMAGE[:TAG] [IMAGE[:TAG]...]",
        "Return low-level information about keys and signatures",
        TRUST,
        (Flag("pretty", "bool", "Show it for people"),),
        most=None,
    ),
    "trust revoke": _refused(
        "trust revoke",
        "[OPTIONS] IMAGE[:TAG]",
        "Remove trust for an image",
        TRUST,
        (Flag("yes", "bool", "Do not ask", "y"),),
    ),
    "trust sign": _refused(
        "trust sign", "IMAGE:TAG", "Sign an image", TRUST, (Flag("local", "bool", "Sign a local image"),)
    ),
    "trust key generate": _refused(
        "trust key generate",
        "NAME",
        "Generate and load a signing key-pair",
        TRUST,
        (Flag("dir", "string", "Where to put the key"),),
    ),
    "trust key load": _refused(
        "trust key load",
        "[OPTIONS] KEYFILE",
        "Load a private key file for signing",
        TRUST,
        (Flag("name", "string", "Name of the key", default="signer"),),
    ),
    "trust signer add": _refused(
        "trust signer add",
        "OPTIONS NAME REPOSITORY [REPOSITORY...]",
        "Add a signer",
        TRUST,
        (Flag("key", "list", "The signer's public key"),),
        2,
        None,
    ),
    "trust signer remove": _refused(
        "trust signer remove",
        "[OPTIONS] NAME REPOSITORY [REPOSITORY...]",
        "Remove a signer",
        TRUST,
        (Flag("force", "bool", "Do not ask", "f"),),
        2,
        None,
    ),
}
