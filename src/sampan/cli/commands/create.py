"""`sampan create`: create a container without starting it."""

from __future__ import annotations

from sampan.cli.app import line
from sampan.cli.containers.creating import create
from sampan.cli.containers.options import CREATE_FLAGS
from sampan.cli.failures import ApiError, ConnectionFailed, UsageError
from sampan.cli.flags import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values


def run(app: App, values: Values, arguments: list[str]) -> int:
    """Create a container and print its id. What the daemon says is shown without the hint to our help."""
    try:
        container, _ = create(app, values, arguments, detached=False)
    except (ApiError, ConnectionFailed) as error:
        raise UsageError(error.message, 1) from None
    line(container)
    return 0


COMMAND = Command(
    "create",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    CREATE_FLAGS,
    run,
    least=1,
    aliases=("container create", "create"),
    interspersed=False,
    failure=125,
    with_help=True,
)
