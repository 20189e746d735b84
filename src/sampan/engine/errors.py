"""The engine's own errors, in Docker's words, since tools match on them.

NotFound
├── ContainerNotFound     404  No such container: x
└── ExecNotFound          404  No such exec instance: x
Conflict
├── NameInUse             409  the name belongs to another container
├── NotRunning            409  the container has to be running for this
├── Restarting            409  it waits to be started again
└── RemovalInProgress     409  somebody else is removing it now
"""

from __future__ import annotations

from sampan.errors import Conflict, NotFound


class ContainerNotFound(NotFound):
    """No container has this id, name or id prefix."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"No such container: {reference}")


class ExecNotFound(NotFound):
    """No exec has this id, or it is long over."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"No such exec instance: {reference}")


class NameInUse(Conflict):
    """Another container has this name."""

    def __init__(self, name: str, owner: str) -> None:
        super().__init__(
            f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )


class NotRunning(Conflict):
    """This can only be done to a running container."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f"container {container_id} is not running")


class Restarting(Conflict):
    """The container has ended, and its restart policy has it started again in a moment."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f"Container {container_id} is restarting, wait until the container is running")


class RemovalInProgress(Conflict):
    """The container is about to be gone."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f"removal of container {container_id} is already in progress")
