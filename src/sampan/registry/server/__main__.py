"""`python -m sampan.registry.server serve|gc`: from the command line to an exit code."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence

from sampan import logs
from sampan.errors import Conflict, InvalidParameter, SampanError
from sampan.registry.server.options import Settings, parse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 after a clean end, 1 when it failed, 125 for a wrong command line.
    """
    try:
        settings = parse(sys.argv[1:] if arguments is None else arguments)
    except InvalidParameter as error:
        print(f"sampan registry: {error.message}", file=sys.stderr)
        return 125
    try:
        logs.set_up(settings.log_level)
        logging.getLogger("sampan.http").setLevel(
            logging.INFO
        )  # each request is logged once, with its answer
        return _collect(settings) if settings.command == "gc" else _serve(settings)
    except SampanError as error:
        print(f"sampan registry: {error.message}", file=sys.stderr)
        return 1
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"sampan registry: {place}{error.strerror or error}", file=sys.stderr)
        return 1


def _serve(settings: Settings) -> int:
    from sampan.registry.server.service import Service

    async def serve() -> None:
        await Service(settings).run()

    asyncio.run(serve())
    return 0


def _collect(settings: Settings) -> int:
    from sampan.registry.server.collector import Collector, Report
    from sampan.registry.server.control import ask_to_collect
    from sampan.registry.server.store import Store

    if not (settings.root / "registry.db").exists():
        raise SampanError(f"{settings.root}: no registry has its data there: see --root")
    try:
        store = Store(settings.root, settings.limits)
    except Conflict:
        found = ask_to_collect(settings.root, settings.untagged)
        if found is None:
            raise
        report = Report(**found)  # type: ignore[arg-type]
    else:
        try:
            report = Collector(store, settings.untagged).collect()
        finally:
            store.close()
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
