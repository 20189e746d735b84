"""`POST /build` and `POST /build/cancel`: images from Dockerfiles, by the classic builder's rules."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from sampan.api.routes.progress import Progress, coroutine_response
from sampan.engine import Engine
from sampan.engine.model import HostConfig, Ulimit
from sampan.errors import InvalidParameter, SampanError, Unsupported
from sampan.http import Request, Response, Routes, empty
from sampan.http.query import Query
from sampan.oci.platforms import from_text
from sampan.oci.records import decode
from sampan.registry.credentials import from_config_header

if TYPE_CHECKING:
    from sampan.building import BuildOptions

routes = Routes()

_BUILDKIT = "needs BuildKit, which is not offered: set DOCKER_BUILDKIT=0"


@routes.post("/build")
async def build_image(request: Request) -> Response:
    """Build an image from the context that the body is, or that `remote` names."""
    from sampan.building import Ending, build  # the idle daemon does without

    engine: Engine = request.engine
    options = _options(request.query)
    options.secrets = _secrets(request.headers.get("x-sampan-build-secrets", ""))
    options.credentials = from_config_header(request.headers.get("x-registry-config", ""))
    quiet, build_id = request.query.flag("q"), request.query.get("buildid")
    if build_id and build_id in engine.builds:
        raise InvalidParameter(f"buildid: a build {build_id!r} is under way")
    ending = Ending()
    body = request.body_stream()

    async def work(tell: Progress) -> None:
        if not quiet:
            await build(engine, options, body, tell, ending, build_id)
            return
        unsaid: list[dict[str, Any]] = []
        try:
            image_id = await build(engine, options, body, unsaid.append, ending, build_id)
        except (SampanError, OSError):
            for message in unsaid:
                tell(message)
            raise
        tell({"stream": f"{image_id}\n"})

    return await coroutine_response(work, request, ending.set)


@routes.post("/build/cancel")
async def cancel_build(request: Request) -> Response:
    """End the build that was begun with this `buildid`, if it is still under way."""
    engine: Engine = request.engine
    build_id = request.query.get("id")
    if not build_id:
        raise InvalidParameter("build ID not provided")
    end = engine.builds.get(build_id)
    if end is not None:
        end()
    return empty(200)


def _secrets(header: str) -> dict[str, bytes]:
    """The secrets that a header of our own brings: base64 of JSON, ids with their contents in base64.

    Raises:
        InvalidParameter: it is malformed; of what is in it nothing is told.
    """
    if not header:
        return {}
    try:
        given = json.loads(base64.urlsafe_b64decode(header))
        return {str(name): base64.b64decode(text, validate=True) for name, text in given.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InvalidParameter("X-Sampan-Build-Secrets: malformed") from None


def _options(query: Query) -> BuildOptions:
    from sampan.building import BuildOptions

    version, isolation = query.get("version") or "1", query.get("isolation")
    if version == "2" or query.get("session"):
        raise Unsupported(f"this build {_BUILDKIT}")
    if version != "1":
        raise InvalidParameter(f"invalid version {version}")
    if query.get("outputs") not in ("", "null", "[]"):
        raise Unsupported(f"outputs: exporting what is built {_BUILDKIT}")
    if query.flag("squash"):
        raise Unsupported(
            "squash is not offered: it is an experiment of Docker's; use several stages instead"
        )
    if isolation not in ("", "default"):
        raise InvalidParameter(f"invalid isolation {isolation!r}: only default is there on Linux")
    platform = query.get("platform")
    return BuildOptions(
        tags=[tag for tag in query.all("t") if tag],
        dockerfile=query.get("dockerfile"),
        remote=query.get("remote"),
        arguments=_texts(query, "buildargs", optional=True),
        labels={name: text or "" for name, text in _texts(query, "labels").items()},
        use_cache=not query.flag("nocache"),
        cache_from=_list(query, "cachefrom", str),
        pull=query.flag("pull"),
        remove=query.flag("rm", True),
        force_remove=query.flag("forcerm"),
        target=query.get("target"),
        platform=from_text(platform) if platform else None,
        host_config=_host_config(query),
    )


def _host_config(query: Query) -> HostConfig:
    """What the containers of RUN are held to."""
    ulimits = [decode(Ulimit, one, "ulimits") for one in _list(query, "ulimits", dict)]
    host_config = HostConfig(
        cgroup_parent=query.get("cgroupparent"),
        memory=query.integer("memory"),
        memory_swap=query.integer("memswap"),
        cpu_shares=query.integer("cpushares"),
        cpu_period=query.integer("cpuperiod"),
        cpu_quota=query.integer("cpuquota"),
        cpuset_cpus=query.get("cpusetcpus"),
        cpuset_mems=query.get("cpusetmems"),
        shm_size=query.integer("shmsize"),
        network_mode=query.get("networkmode"),
        extra_hosts=query.all("extrahosts") or None,
        security_opt=query.all("securityopt") or None,
        ulimits=ulimits or None,
    )
    host_config.log_config.type = "none"
    return host_config


def _json(query: Query, name: str) -> Any:
    text = query.get(name)
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        raise InvalidParameter(f"{name}: invalid JSON") from None


def _texts(query: Query, name: str, optional: bool = False) -> dict[str, str | None]:
    value = _json(query, name) or {}
    kinds: tuple[type, ...] = (str, type(None)) if optional else (str,)
    if not isinstance(value, dict) or not all(isinstance(text, kinds) for text in value.values()):
        raise InvalidParameter(f"{name}: expected a JSON object of texts")
    return value


def _list(query: Query, name: str, kind: type) -> list[Any]:
    value = _json(query, name) or []
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise InvalidParameter(f"{name}: expected a JSON list")
    return value
