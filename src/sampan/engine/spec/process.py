"""The OCI process object of `docker exec`: the container's own confinement, with what the exec changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sampan.engine.model import Container
from sampan.engine.profiles import apparmor
from sampan.engine.spec.capability_sets import available, process_sets
from sampan.engine.spec.environment import container_environment, override, with_home
from sampan.engine.spec.users import lookup_user
from sampan.errors import InvalidParameter

if TYPE_CHECKING:
    from sampan.engine.core import ExecConfig


def exec_process(
    container: Container, config: ExecConfig, own: dict[str, Any], root_path: str, prompt: bool = False
) -> dict[str, Any]:
    """The process that an exec runs.

    Args:
        config: what the client asks for.
        own: the `process` of the running container's config.json.
        root_path: the container's root as the host sees it, `/proc/<pid>/root`.
        prompt: as for `lookup_user`.

    Raises:
        InvalidParameter: the user is not in the container's files, or the directory is not absolute.
        BlockingIOError: it cannot be done at once.
    """
    groups = container.host_config.group_add or []
    user = lookup_user(root_path, config.user or container.config.user, groups, prompt)
    cwd = config.working_dir or own["cwd"]
    if not cwd.startswith("/"):
        raise InvalidParameter(f"the working directory {cwd!r} is invalid, it needs to be an absolute path")
    privileged = config.privileged or container.host_config.privileged
    names = list(available()) if privileged else own["capabilities"]["bounding"]
    environment = container_environment(container, config.tty)
    process: dict[str, Any] = {
        "args": list(config.cmd),
        "cwd": cwd,
        "env": with_home(override(environment, config.env or []), user.home),
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids},
        "capabilities": process_sets(names, user.uid),
        "noNewPrivileges": own["noNewPrivileges"],
        "rlimits": own["rlimits"],
    }
    for name in ("oomScoreAdj", "apparmorProfile"):
        if name in own:
            process[name] = own[name]
    if process.get("apparmorProfile") == apparmor.NAME:  # also for a privileged exec, as Docker has it
        apparmor.ensure()
    size = config.console_size
    if config.tty and size and len(size) == 2 and all(size):
        process["consoleSize"] = {"height": size[0], "width": size[1]}
    return process
