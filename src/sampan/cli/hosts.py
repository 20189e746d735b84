"""Where the daemon is: `-H`, SAMPAN_HOST, DOCKER_HOST, else the socket of the machine's own daemon.

DOCKER_TLS_VERIFY, DOCKER_TLS and DOCKER_CERT_PATH mean what they mean to docker.
"""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.flags import Values

DEFAULT_SOCKET = "/run/sampan/sampan.sock"


class Tls:
    """How a TCP host is spoken to.

    Attributes:
        verify: whether the daemon's certificate must be signed by `ca` and name the host.
        cert, key: our own certificate and its key, or "" when we show none.
    """

    __slots__ = ("ca", "cert", "key", "verify")

    def __init__(self, verify: bool, ca: str, cert: str, key: str) -> None:
        self.verify = verify
        self.ca = ca
        self.cert = cert
        self.key = key


class Host:
    """An address of a daemon.

    Attributes:
        url: as the user wrote it.
        path: of the unix socket, or "".
        address: (name, port) for TCP.
        tls: for a TCP host that speaks TLS, else None.
        ssh: whether the system's ssh is the way to it.
        automatic: nobody chose it, so the daemon may be started.
    """

    __slots__ = ("address", "automatic", "path", "ssh", "tls", "url")

    def __init__(self, url: str, automatic: bool = False) -> None:
        self.url = url
        self.path = ""
        self.address: tuple[str, int] | None = None
        self.tls: Tls | None = None
        self.ssh = False
        self.automatic = automatic
        scheme, separator, rest = url.partition("://")
        if not separator:
            scheme, rest = ("unix", url) if url.startswith("/") else ("tcp", url)
        if scheme == "unix":
            self.path = rest or DEFAULT_SOCKET
        elif scheme == "ssh":
            self.ssh = True
        elif scheme == "tcp":
            name, colon, port = rest.rstrip("/").rpartition(":")
            if not colon:
                name, port = rest, "2375"
            if not port.isdigit():
                raise CommandError(f"unable to parse daemon host `{url}`: the port is not a number")
            self.address = (name.strip("[]") or "127.0.0.1", int(port))
        else:
            raise CommandError(
                f"unable to parse daemon host `{url}`: use unix://PATH, tcp://HOST:PORT or ssh://HOST"
            )


def chosen_host(options: Values) -> Host:
    """The daemon that the global options and the environment name."""
    given = options.items("host")
    if len(given) > 1:
        raise CommandError("specify only one -H")
    url = given[0] if given else os.environ.get("SAMPAN_HOST") or os.environ.get("DOCKER_HOST", "")
    if not url:
        return Host(f"unix://{DEFAULT_SOCKET}", automatic=True)
    host = Host(url)
    if host.address is not None:
        host.tls = _tls(options)
    return host


def _tls(options: Values) -> Tls | None:
    """What flags and environment say of TLS; --tlsverify, whatever its value, switches it on."""
    environment = os.environ
    verify = (
        options.on("tlsverify") if options.given("tlsverify") else bool(environment.get("DOCKER_TLS_VERIFY"))
    )
    asked = options.on("tls") if options.given("tls") else bool(environment.get("DOCKER_TLS"))
    if not (verify or asked or options.given("tlsverify")):
        return None
    folder = environment.get("DOCKER_CERT_PATH") or environment.get("DOCKER_CONFIG") or "~/.docker"
    paths = {}
    for flag, name in (("tlscacert", "ca.pem"), ("tlscert", "cert.pem"), ("tlskey", "key.pem")):
        path = options.text(flag) or os.path.join(os.path.expanduser(folder), name)
        if flag != "tlscacert" and not options.given(flag) and not os.path.exists(path):
            path = ""
        paths[flag] = path
    if bool(paths["tlscert"]) != bool(paths["tlskey"]):
        raise CommandError("a client certificate needs both --tlscert and --tlskey")
    return Tls(verify, paths["tlscacert"], paths["tlscert"], paths["tlskey"])
