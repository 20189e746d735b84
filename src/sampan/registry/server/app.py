"""From a request to its handler: endpoint, method, what this registry does at all, who may do it, the answer.

Errors become the protocol's (OCI distribution spec, "Error Codes"); every request is one line in the log.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from sampan import __version__
from sampan.errors import SampanError
from sampan.http import (
    ClientGone,
    HttpServer,
    Request,
    Response,
    Router,
    describe,
    dump_json,
    empty,
    json_response,
)
from sampan.registry.server.access import CATALOG, Guard, Wanted
from sampan.registry.server.faults import Fault, NameUnknown, Unsupported
from sampan.registry.server.page import Page
from sampan.registry.server.pulling import Pulling, Source
from sampan.registry.server.pushing import Pushing
from sampan.registry.server.routing import METHODS, READ, Target, find
from sampan.registry.server.search import Search
from sampan.registry.server.store import Store

log = logging.getLogger("sampan.registry.server")

_HEADERS = (
    ("Docker-Distribution-Api-Version", "registry/2.0"),
    ("X-Content-Type-Options", "nosniff"),
    ("Server", f"Sampan-Registry/{__version__}"),
)
# Errors that the HTTP layer finds by itself, and the codes that fit best.
_CODES = {400: "UNSUPPORTED", 404: "NAME_UNKNOWN", 408: "UNSUPPORTED", 431: "UNSUPPORTED"}
_FULL = (errno.ENOSPC, errno.EDQUOT)

Handler = Callable[[Request, Target], Awaitable[Response]]


class App:
    """All endpoints of one registry.

    Args:
        store: what it serves.
        guard: who may do what.
        source: upstream, when it is a cache.
        read_only: why nothing can be pushed or deleted here; "" when it can.
        deletable: whether manifests and blobs may be deleted.
        with_page: whether there are pages for people.
    """

    def __init__(
        self,
        store: Store,
        guard: Guard,
        source: Source | None = None,
        read_only: str = "",
        deletable: bool = True,
        with_page: bool = True,
    ) -> None:
        self._guard = guard
        self._read_only = read_only
        self._deletable = deletable
        pulling, pushing, search = Pulling(store, source), Pushing(store), Search(store.catalog)
        self._pushing = pushing
        self._handlers: dict[tuple[str, str], Handler] = {
            ("base", "GET"): _base,
            ("catalog", "GET"): pulling.catalog,
            ("tags", "GET"): pulling.tags,
            ("manifest", "GET"): pulling.manifest,
            ("manifest", "PUT"): pushing.put_manifest,
            ("manifest", "DELETE"): pushing.delete_manifest,
            ("referrers", "GET"): pulling.referrers,
            ("blob", "GET"): pulling.blob,
            ("blob", "DELETE"): pushing.delete_blob,
            ("upload", "GET"): pushing.status,
            ("upload", "PATCH"): pushing.patch,
            ("upload", "PUT"): pushing.put,
            ("upload", "DELETE"): pushing.cancel,
            ("v1-ping", "GET"): search.ping,
            ("search", "GET"): search.search,
        }
        if with_page:
            page = Page(store)
            self._handlers["front-page", "GET"] = page.front
            self._handlers["repository-page", "GET"] = page.repository

    async def handle(self, request: Request) -> Response:
        """Answer a request, errors included; `ClientGone` and `ConnectionError` pass through."""
        began = time.perf_counter()
        try:
            response = await self._dispatch(request)
        except (ClientGone, ConnectionError):
            log.info("%s %s: the client went away", request.method, _shown(request.path))
            raise
        except Exception as error:
            response = error_response(error, request)
        if log.isEnabledFor(logging.DEBUG):
            log.debug(
                "%s %s %s %d %s %.1f ms",
                request.peer or "-",
                request.method,
                _shown(request.path),
                response.status,
                "-" if response.length is None else response.length,
                (time.perf_counter() - began) * 1000,
            )
        return response

    async def _dispatch(self, request: Request) -> Response:
        target, method = find(request.path), request.method
        if target is None or (target.kind.endswith("-page") and (target.kind, "GET") not in self._handlers):
            raise NameUnknown("page not found")
        if method not in METHODS[target.kind]:
            allowed = ", ".join(METHODS[target.kind])
            raise Unsupported(f"{method} is not for this path", headers={"Allow": allowed})
        if method not in READ and self._read_only:
            raise Unsupported(self._read_only)
        if method == "DELETE" and target.kind in ("manifest", "blob") and not self._deletable:
            raise Unsupported("this registry deletes nothing")
        access = await self._guard.check(request.headers.get("authorization", ""), wanted(target, method))
        if target.kind == "uploads":
            return await self._pushing.begin(request, target, access)
        return await self._handlers[target.kind, "GET" if method == "HEAD" else method](request, target)


def _shown(path: str) -> str:
    """A path in the log: what could be taken for a line of its own, or moves a terminal's cursor, escaped."""
    return path if path.isprintable() else path.encode("unicode_escape").decode()


def wanted(target: Target, method: str) -> list[Wanted]:
    """What a request is going to do."""
    if target.kind in ("catalog", "search", "front-page"):
        return [CATALOG]
    if not target.name:
        return []
    if method == "DELETE" and target.kind in ("manifest", "blob"):
        actions: tuple[str, ...] = ("delete",)
    else:
        actions = ("pull",) if method in READ and target.kind != "upload" else ("pull", "push")
    return [Wanted("repository", target.name, action) for action in actions]


async def _base(request: Request, target: Target) -> Response:
    return json_response({})


def error_response(error: BaseException, request: Request) -> Response:
    """The protocol's answer to an error; what is our own fault goes to the log."""
    where = f"{request.peer} {request.method} {_shown(request.path)}"
    if isinstance(error, Fault):
        if error.status >= 500:
            log.error("%s: %s", where, error.message)
        return _errors(error.status, error.code, error.message, error.detail, error.headers)
    if isinstance(error, SampanError):
        code = "UNAUTHORIZED" if error.status == 401 else "DENIED" if error.status == 403 else "UNKNOWN"
        log.info("%s: %s", where, error.message)
        return _errors(error.status, code, error.message)
    if isinstance(error, OSError) and error.errno in _FULL:
        log.error("%s: no space left on the device", where)
        return _errors(507, "DENIED", "no space left on the registry's device")
    log.error("%s: %s: %s", where, type(error).__name__, error, exc_info=error)
    return _errors(500, "UNKNOWN", "internal error; the registry's log has more")


def _errors(
    status: int, code: str, message: str, detail: object = None, headers: Mapping[str, str] | None = None
) -> Response:
    if status == 304:
        return empty(304)
    entry = {"code": code, "message": message}
    if detail is not None:
        entry["detail"] = detail  # type: ignore[assignment]
    return json_response({"errors": [entry]}, status, headers)


class _OneRoute(Router):
    """Every path goes to the app, which reads it from its end."""

    def __init__(self, app: App) -> None:
        super().__init__(())
        self._app = app

    def match(
        self, method: str, path: str
    ) -> tuple[Callable[[Request], Awaitable[Response | None]], dict[str, str]]:
        return self._app.handle, {}


class RegistryServer(HttpServer):
    """The HTTP server of a registry."""

    def __init__(self, app: App) -> None:
        super().__init__(_OneRoute(app), headers=_HEADERS, versioned=False)

    def error_body(self, status: int, message: str) -> bytes:
        return dump_json({"errors": [{"code": _CODES.get(status, "UNKNOWN"), "message": message}]})

    def error_response(self, error: BaseException, where: str) -> Response:
        """For what goes wrong outside of the app: a request that cannot be read."""
        if isinstance(error, SampanError):
            return _errors(error.status, _CODES.get(error.status, "UNKNOWN"), error.message)
        if isinstance(error, UnicodeDecodeError):
            return _errors(400, "NAME_INVALID", "the path is not UTF-8")
        log.error("%s: %s", where, describe(error), exc_info=error)
        return _errors(500, "UNKNOWN", "internal error; the registry's log has more")
