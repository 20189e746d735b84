"""Connections over TCP, plain or with TLS; imported only for `-H tcp://`."""

from __future__ import annotations

import socket

from sampan.cli.client import unreachable
from sampan.cli.failures import ConnectionFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.hosts import Host


def connect(host: Host) -> Any:
    """A connected socket, TLS done where the host wants it."""
    assert host.address is not None
    try:
        connection = socket.create_connection(host.address, timeout=30)
    except OSError as error:
        raise unreachable(host, error) from None
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if host.tls is None:
        return connection
    import os
    import ssl

    settings = host.tls
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if settings["verify"]:
            context.load_verify_locations(settings["ca"])
        else:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if settings["explicit"] or os.path.exists(settings["cert"]):
            context.load_cert_chain(settings["cert"], settings["key"])
        return context.wrap_socket(connection, server_hostname=host.address[0])
    except (OSError, ssl.SSLError) as error:
        connection.close()
        raise ConnectionFailed(f"error during connect: {host.url}: {error}") from None
