"""Where the daemon is: `-H`, then SAMPAN_HOST, else the socket of the machine's own daemon."""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

DEFAULT_SOCKET = "/run/sampan/sampan.sock"


class Host:
    """An address of a daemon.

    Attributes:
        url: as the user wrote it.
        path: of the unix socket, or "".
        address: (name, port) for TCP.
        tls: certificate paths and whether to verify, or None.
        automatic: nobody chose it, so the daemon may be started.
    """

    __slots__ = ("address", "automatic", "path", "tls", "url")

    def __init__(self, url: str, automatic: bool = False) -> None:
        self.url = url
        self.path = ""
        self.address: tuple[str, int] | None = None
        self.tls: dict[str, Any] | None = None
        self.automatic = automatic
        scheme, separator, rest = url.partition("://")
        if not separator:
            scheme, rest = ("unix", url) if url.startswith("/") else ("tcp", url)
        if scheme == "unix":
            self.path = rest or DEFAULT_SOCKET
        elif scheme in ("tcp", "http", "https"):
            name, colon, port = rest.rstrip("/").rpartition(":")
            if not colon:
                name, port = rest, "2375"
            if not port.isdigit():
                raise CommandError(f"unable to parse daemon host `{url}`: the port is not a number")
            self.address = (name.strip("[]") or "127.0.0.1", int(port))
        else:
            raise CommandError(f"unable to parse daemon host `{url}`: use unix://PATH or tcp://HOST:PORT")


def chosen_host(options: Values) -> Host:
    """The daemon that the global options and the environment name."""
    given = options.items("host")
    if len(given) > 1:
        raise CommandError("specify only one -H")
    url = given[0] if given else os.environ.get("SAMPAN_HOST", "")
    if not url:
        return Host(f"unix://{DEFAULT_SOCKET}", automatic=True)
    host = Host(url)
    if options.on("tls") or options.on("tlsverify"):
        folder = os.path.expanduser("~/.docker")
        host.tls = {
            "verify": options.on("tlsverify"),
            "ca": options.text("tlscacert") or os.path.join(folder, "ca.pem"),
            "cert": options.text("tlscert") or os.path.join(folder, "cert.pem"),
            "key": options.text("tlskey") or os.path.join(folder, "key.pem"),
            "explicit": options.given("tlscert"),
        }
    return host
