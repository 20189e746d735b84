"""From `--cap-add`, `--cap-drop` and `--privileged` to the capability sets of a process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from sampan.errors import InvalidParameter
from sampan.linux import capabilities


@cache
def available() -> tuple[str, ...]:
    """All that this daemon can give, in the kernel's order: its own bounding set."""
    held = capabilities.bounding()
    return tuple(name for name in capabilities.ALL if name in held)


def normalize(names: Iterable[str], option: str) -> list[str]:
    """Full names in capitals, from names in any case and with or without `CAP_`; `ALL` stays.

    Args:
        option: the field's name, for messages.

    Raises:
        InvalidParameter: in Docker's words.
    """
    full = []
    for name in names:
        upper = name.upper()
        if upper not in ("ALL", "CAP_ALL"):
            upper = upper if upper.startswith("CAP_") else f"CAP_{upper}"
            if upper not in capabilities.ALL:
                raise InvalidParameter(f'invalid {option}: unknown capability: "{upper}"')
            if option == "CapAdd" and upper not in available():
                raise InvalidParameter(
                    f"invalid {option}: capability not supported by your kernel or not available in the "
                    f'current environment: "{upper}"'
                )
            full.append(upper)
        else:
            full.append("ALL")
    return full


def bounding(add: Sequence[str], drop: Sequence[str], privileged: bool) -> list[str]:
    """The capabilities a container may ever have.

    `ALL` in one list is the start, from which the other list's names are taken or to which they are added.
    """
    added, dropped = normalize(add, "CapAdd"), normalize(drop, "CapDrop")
    if privileged:
        return list(available())
    if "ALL" in added:
        wanted = [name for name in available() if name not in dropped]
    elif "ALL" in dropped:
        wanted = [name for name in available() if name in added]
    else:
        wanted = [name for name in capabilities.DEFAULT if name not in dropped]
        wanted += [name for name in added if name not in wanted]
    return [name for name in wanted if name in available()]


def process_sets(names: Sequence[str], uid: int) -> dict[str, Any]:
    """OCI `process.capabilities`: a user who is not root has none at work, as execve(2) would leave it."""
    if uid == 0:
        return {"bounding": list(names), "effective": list(names), "permitted": list(names)}
    return {"bounding": list(names)}
