"""`python -m sampan.manifests`, with the order as JSON on stdin."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from sampan.errors import SampanError
from sampan.manifests.commands import COMMANDS, Manifests
from sampan.manifests.places import Places
from sampan.manifests.store import Store


def main() -> int:
    """Do as ordered: `command`, `arguments`, `flags`, `directory`, and `credentials` by argument."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # who reads no further ends us
    order: dict[str, Any] = json.load(sys.stdin)
    flags = order["flags"]
    try:
        with Places(order["credentials"], insecure=bool(flags.get("insecure"))) as places:
            manifests = Manifests(Store(order["directory"]), places, print)
            COMMANDS[order["command"]](manifests, order["arguments"], flags)
    except SampanError as error:
        print(error.message, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.strerror}: {error.filename}" if error.filename else error, file=sys.stderr)
        return 1
    return 0


sys.exit(main())
