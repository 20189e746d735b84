"""--disable-content-trust: signatures of Notary are not looked at, so whoever asks for them is refused."""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError
from sampan.cli.flags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values

FLAG = Flag("disable-content-trust", "bool", "Skip image verification", default=True)


def need_none(values: Values) -> None:
    """Refuse to go on where the user wants signatures checked: by the flag, else by DOCKER_CONTENT_TRUST."""
    if values.given("disable-content-trust"):
        if not values.on("disable-content-trust"):
            raise CommandError(
                "--disable-content-trust=false is not supported: Notary's signatures cannot be checked"
            )
    elif os.environ.get("DOCKER_CONTENT_TRUST", "").lower() in ("1", "t", "true"):
        raise CommandError(
            "DOCKER_CONTENT_TRUST is set, but Notary's signatures cannot be checked: "
            "unset it, or give --disable-content-trust"
        )
