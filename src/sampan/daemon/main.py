"""`sampand`: from the command line to a running daemon, and its exit code."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence

from sampan import __version__
from sampan.daemon.options import UsageError, help_text, parse_flags
from sampan.errors import Conflict, SampanError

KEEPER = "SAMPAN_KEEPER"  # as `sampan.rootless.entering` has it, which root need not import


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon.

    Returns:
        0 after a clean stop, 1 when it could not start, 75 when another daemon is in the way, 125 for a wrong
        command line.
    """
    try:
        flags = parse_flags(sys.argv[1:] if arguments is None else arguments)
        if flags.get("help"):
            print(help_text())
            return 0
        if flags.get("version"):
            print(f"Sampan version {__version__}")
            return 0
        return _run(flags)
    except UsageError as error:
        print(f"sampand: {error.message}", file=sys.stderr)
        return 125
    except SampanError as error:
        print(f"sampand: {error.message}", file=sys.stderr)
        return os.EX_TEMPFAIL if isinstance(error, Conflict) else 1
    finally:
        gc.enable()


def _run(flags: dict[str, object]) -> int:
    gc.disable()  # it would look eighty times through what is imported, nearly all of which stays
    from sampan.daemon.settings import settle

    validate = bool(flags.pop("validate", False))
    wanted = flags.pop("rootless", None)
    inside = os.geteuid() == 0 and KEEPER in os.environ
    rootless = inside or os.geteuid() != 0
    if wanted is True and not rootless:
        raise SampanError("--rootless is for an ordinary user's daemon: start it as that user, without sudo")
    if wanted is False and rootless:
        raise SampanError("sampand needs to run as root: use sudo, or leave --rootless=false away")
    settings = settle(flags, rootless)
    if validate:
        print("configuration OK")
        return 0
    if rootless:
        from sampan.daemon.rootless import arrange

        arrange(settings)
    import asyncio

    from sampan import logs
    from sampan.daemon.service import Service, prepare_process

    gc.freeze()
    gc.enable()
    logs.set_up(settings.log_level, settings.log_format)
    prepare_process()

    async def serve() -> None:
        await Service(settings).run()

    try:
        asyncio.run(serve())
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise SampanError(f"cannot start: {place}{error.strerror or error}") from error
    return 0
