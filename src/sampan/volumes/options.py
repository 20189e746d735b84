"""What `docker volume create -o` means to the local driver: `type`, `o` and `device` of a mount, or a `size`.

As mount(8) has them: `type=tmpfs device=tmpfs o=size=100m,uid=1000`, `type=none o=bind device=/srv/x`,
`type=nfs o=addr=192.0.2.7,rw device=:/export`. They are checked when the volume is made, and carried out when
a container that uses it starts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from sampan.errors import InvalidParameter

_KNOWN = ("type", "o", "device", "size")
_NEEDED = (("device", ("type",)), ("type", ("device",)), ("o", ("device", "type")))
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_PASSWORD = re.compile(r"(?<![^,])(password|pass)=[^,]*")


def check(name: str, options: Mapping[str, str]) -> None:
    """Refuse options that mean nothing.

    Args:
        name: the volume's, for messages.

    Raises:
        InvalidParameter: in Docker's words.
    """

    def refuse(reason: str) -> InvalidParameter:
        return InvalidParameter(f"create {name}: {reason}")

    for option in options:
        if option not in _KNOWN:
            raise refuse(f'invalid option: "{option}"')
    if "\0" in "".join(options.values()):
        raise refuse("an option holds a null character")
    if options.get("type") == "cifs":
        try:
            port = urlsplit(options.get("device", "")).port
        except ValueError as error:
            raise refuse(f"error parsing mount device url: {error}") from None
        if port is not None:
            raise refuse("port not allowed in CIFS device URL, include 'port' in 'o='")
    try:
        size = size_bytes(options)
    except ValueError:
        raise refuse(f"invalid size: '{options['size']}'") from None
    for given, needed in _NEEDED:
        for other in needed:
            if given in options and other not in options:
                raise refuse(f'missing required option: "{other}"')
    if size and "device" in options:
        raise refuse("size limits what lies on the engine's own disk: it does not go with device")
    if "remount" in options.get("o", "").split(","):
        raise refuse("the mount option remount has nothing to change here")


def is_mount(options: Mapping[str, str]) -> bool:
    """Whether the volume's files lie elsewhere, and are mounted while somebody uses it."""
    return "device" in options


def size_bytes(options: Mapping[str, str]) -> int:
    """The limit that `size` sets, as `20`, `64m` or `1.5GiB`; 0 for none.

    Raises:
        ValueError: it is no size.
    """
    text = options.get("size", "")
    if not text:
        return 0
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(text)
    return int(float(match[1]) * 1024 ** " kmgtp".index(match[2].lower() or " "))


def without_password(text: str) -> str:
    """Mount options fit to be shown."""
    return _PASSWORD.sub(r"\1=********", text)
