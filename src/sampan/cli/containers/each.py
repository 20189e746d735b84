"""One request for each argument: names of the successes are printed, failures are shown, the rest goes on."""

from __future__ import annotations

from sampan.cli.app import line, warn
from sampan.cli.failures import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def for_each(names: Sequence[str], action: Callable[[str], str | None]) -> int:
    """Do `action` for every name; what it returns (None: the name) is printed.

    Returns:
        The exit code: 1 when any failed.
    """
    failed = False
    for name in names:
        try:
            result = action(name)
        except ApiError as error:
            warn(error.message)
            failed = True
        else:
            line(name if result is None else result)
    return 1 if failed else 0
