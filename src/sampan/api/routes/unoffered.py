"""Docker's endpoints that this version does not offer: refused by name, so that no client has to guess."""

from __future__ import annotations

from sampan.errors import NotFound, Unavailable, Unsupported
from sampan.http import Request, Response, Routes, json_response

routes = Routes()

_UNOFFERED = (
    ("POST", "/session", "BuildKit"),
    ("POST", "/grpc", "BuildKit"),
    ("POST", "/plugins/pull", "plugins"),
    ("POST", "/plugins/create", "plugins"),
    ("GET", "/plugins/privileges", "plugins"),
)
_SWARM = ("/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs")


def _refuse(what: str) -> None:
    async def refused(_: Request) -> Response:
        raise Unsupported(f"{what} {'are' if what == 'plugins' else 'is'} not offered yet")

    for method, pattern, name in _UNOFFERED:
        if name == what:
            routes.route(method, pattern)(refused)


for _what in dict.fromkeys(name for _, _, name in _UNOFFERED):
    _refuse(_what)


async def _no_swarm(_: Request) -> Response:
    raise Unavailable("This node is not a swarm manager. Sampan runs containers on one machine.")


for _path in _SWARM:
    for _method in ("GET", "POST", "DELETE"):
        routes.route(_method, _path)(_no_swarm)
        routes.route(_method, f"{_path}/{{rest:path}}")(_no_swarm)

routes.route("PUT", "/volumes/{name:path}")(_no_swarm)  # changes cluster volumes only


async def _no_plugin(request: Request) -> Response:
    raise NotFound(f'plugin "{request.params["name"]}" not found')


routes.get("/plugins/{name:path}/json")(_no_plugin)
routes.delete("/plugins/{name:path}")(_no_plugin)
for _verb in ("enable", "disable", "upgrade", "push", "set"):
    routes.post(f"/plugins/{{name:path}}/{_verb}")(_no_plugin)


@routes.get("/plugins")
async def plugins(_: Request) -> Response:
    """There are none."""
    return json_response([])
