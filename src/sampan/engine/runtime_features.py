"""What an external runtime says that it can: its command `features` (OCI runtime spec, features.md)."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache

from sampan.errors import Unsupported

_TIMEOUT_S = 10


def require_id_maps(words: tuple[str, ...]) -> None:
    """See that a runtime makes id-mapped mounts: one that does not know them would mount without a word.

    Raises:
        Unsupported: it does not, or does not say so.
    """
    if not {"idmap", "ridmap"} <= _mount_options(words):
        name = os.path.basename(words[0])
        raise Unsupported(
            f"idmap: the runtime {name} does not say that it maps owners (`{name} features` lists no idmap); "
            "use our own, or the option U"
        )


@cache
def _mount_options(words: tuple[str, ...]) -> frozenset[str]:
    try:
        done = subprocess.run(
            [*words, "features"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
        return frozenset(json.loads(done.stdout).get("mountOptions") or ())
    except (OSError, subprocess.SubprocessError, ValueError, AttributeError):
        return frozenset()
