"""Where the daemon is: --context, `-H`, SAMPAN_HOST, DOCKER_HOST, DOCKER_CONTEXT, the current context of
docker's config.json, else the socket of the machine's own daemon or, where that is not ours to use, of the
user's; the first that is there counts.

DOCKER_TLS_VERIFY, DOCKER_TLS and DOCKER_CERT_PATH mean what they mean to docker.
"""

from __future__ import annotations

import os

from sampan.cli.failures import CommandError
from sampan.places import default_socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values


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
        headers: what the user adds to each request.
    """

    __slots__ = ("address", "automatic", "headers", "path", "ssh", "tls", "url")

    def __init__(self, url: str, automatic: bool = False) -> None:
        self.url = url
        self.path = ""
        self.address: tuple[str, int] | None = None
        self.tls: Tls | None = None
        self.ssh = False
        self.automatic = automatic
        self.headers: dict[str, str] = {}
        scheme, separator, rest = url.partition("://")
        if not separator:
            scheme, rest = ("unix", url) if url.startswith("/") else ("tcp", url)
        if scheme == "unix":
            self.path = rest or default_socket()
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


DEFAULT_CONTEXT = "default"


def chosen_context(options: Values, config: dict[str, Any]) -> str:
    """The name of the context in use.

    Args:
        config: docker's config.json.

    Raises:
        CommandError: flags that exclude each other.
    """
    named = options.text("context")
    if named and options.given("host"):
        raise CommandError("conflicting options: cannot specify both --host and --context")
    if named:
        return named
    if options.given("host") or environment_host():
        return DEFAULT_CONTEXT
    return os.environ.get("DOCKER_CONTEXT") or config.get("currentContext") or DEFAULT_CONTEXT


def environment_host() -> str:
    """The host that the environment names, or ""."""
    return os.environ.get("SAMPAN_HOST") or os.environ.get("DOCKER_HOST", "")


def default_url(options: Values) -> str:
    """The daemon of the context `default`."""
    given = options.items("host")
    if len(given) > 1:
        raise CommandError("Failed to initialize: unable to resolve docker endpoint: Specify only one -H")
    return given[0] if given else environment_host() or f"unix://{default_socket()}"


def chosen_host(options: Values, config: dict[str, Any]) -> Host:
    """The daemon that the global options, the environment and docker's config.json name."""
    name = chosen_context(options, config)
    if name != DEFAULT_CONTEXT:
        return _host_of(name, options)
    url = default_url(options)
    if url == f"unix://{default_socket()}":
        return Host(url, automatic=not (options.given("host") or environment_host()))
    host = Host(url)
    if host.address is not None:
        host.tls = default_tls(options)
    return host


def _host_of(name: str, options: Values) -> Host:
    """The daemon of a context of docker's store."""
    from sampan.cli.contexts.store import ENDPOINT, load, tls_folder

    wrong = "Failed to initialize: unable to resolve docker endpoint"
    try:
        context = load(name)
    except CommandError as error:
        raise CommandError(f"{wrong}: {error.message}") from None
    if ENDPOINT not in context.endpoints:
        raise CommandError(f'{wrong}: context "{name}" has no {ENDPOINT} endpoint')
    if not context.host:
        return Host(f"unix://{default_socket()}", automatic=True)
    host = Host(context.host)
    files = context.tls.get(ENDPOINT) or []
    if host.address is not None and (files or context.skips_verification):
        folder = os.path.join(tls_folder(name), ENDPOINT)
        ca, cert, key = (
            os.path.join(folder, one) if one in files else "" for one in ("ca.pem", "cert.pem", "key.pem")
        )
        if not (cert and key):
            cert = key = ""
        host.tls = Tls(not context.skips_verification, ca, cert, key)
    return host


def default_tls(options: Values) -> Tls | None:
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
