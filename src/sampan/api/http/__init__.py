"""An HTTP/1.1 server made for Docker's API: hijacked connections, streams both ways, TLS with half-close."""

from sampan.api.http.request import ClientGone, Hijacked, Request, ServerInfo
from sampan.api.http.response import (
    MULTIPLEXED_STREAM,
    RAW_STREAM,
    Response,
    dump_json,
    empty,
    json_response,
    stream,
    text,
    thread_stream,
)
from sampan.api.http.routing import Router, Routes
from sampan.api.http.server import HttpServer
from sampan.api.http.versions import NEWEST, OLDEST, ApiVersion

__all__ = [
    "MULTIPLEXED_STREAM",
    "NEWEST",
    "OLDEST",
    "RAW_STREAM",
    "ApiVersion",
    "ClientGone",
    "Hijacked",
    "HttpServer",
    "Request",
    "Response",
    "Router",
    "Routes",
    "ServerInfo",
    "dump_json",
    "empty",
    "json_response",
    "stream",
    "text",
    "thread_stream",
]
