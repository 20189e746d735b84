"""What `POST /build` asks for."""

from __future__ import annotations

from dataclasses import field

from sampan.dataclasses import dataclass
from sampan.engine.model import HostConfig
from sampan.oci.image import Platform
from sampan.registry import Credentials


@dataclass(slots=True)
class BuildOptions:
    """One build.

    Attributes:
        tags: names that the image gets.
        dockerfile: its path in the context; empty for the usual one.
        remote: the URL of a context, or of a Dockerfile; empty for one that the client sends.
        arguments: values of build arguments; None for a name without one.
        labels: put on the image at its last step.
        use_cache: whether steps that were done before count.
        cache_from: images whose steps alone count; empty for all that are here.
        pull: look for a newer base image in its registry.
        remove: remove a step's container when the step has worked.
        force_remove: also when it has not.
        target: the stage to build; empty for the last.
        platform: of base images; None for this machine's.
        secrets: what `RUN --mount=type=secret` may read, by its ids; never written to a disk.
        host_config: limits, network and hosts of the containers of RUN.
        credentials: of registries, by their host.
    """

    tags: list[str] = field(default_factory=list)
    dockerfile: str = ""
    remote: str = ""
    arguments: dict[str, str | None] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    use_cache: bool = True
    cache_from: list[str] = field(default_factory=list)
    pull: bool = False
    remove: bool = True
    force_remove: bool = False
    target: str = ""
    platform: Platform | None = None
    secrets: dict[str, bytes] = field(default_factory=dict, repr=False)
    host_config: HostConfig = field(default_factory=HostConfig)
    credentials: dict[str, Credentials] = field(default_factory=dict)
