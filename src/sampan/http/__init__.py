"""An HTTP/1.1 server for Docker's API and registries: hijack, streams both ways, files, half-closing TLS."""

from sampan.http import websocket
from sampan.http.failures import describe
from sampan.http.request import ClientGone, Hijacked, Request, ServerInfo
from sampan.http.response import (
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    FileResponse,
    Response,
    dump_json,
    empty,
    json_response,
    stream,
    text,
    thread_stream,
)
from sampan.http.routing import Router, Routes
from sampan.http.server import HttpServer
from sampan.http.tls import server_context
from sampan.http.versions import NEWEST, OLDEST, ApiVersion

__all__ = [
    "MULTIPLEXED_STREAM",
    "NEWEST",
    "OLDEST",
    "RAW_STREAM",
    "ApiVersion",
    "ClientGone",
    "FileResponse",
    "Hijacked",
    "HttpServer",
    "Request",
    "Response",
    "Router",
    "Routes",
    "ServerInfo",
    "describe",
    "dump_json",
    "empty",
    "json_response",
    "server_context",
    "stream",
    "text",
    "thread_stream",
    "websocket",
]
