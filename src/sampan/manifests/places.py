"""The repositories that names lead to, and manifests from there."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any

from sampan.errors import NotFound, SampanError
from sampan.manifests.store import ListedImage
from sampan.oci import media_types, reference
from sampan.oci.image import Descriptor
from sampan.oci.reference import Reference
from sampan.registry import Credentials, NotInRegistry, Registries, RegistryConfig, Repository

_CONFIG_LIMIT_BYTES = 4 << 20


class Places:
    """Registries as the user may use them. Use as a context.

    Args:
        credentials: the Engine API's header, by the name that the user gave.
        insecure: whether plain HTTP and unknown certificates will do.
    """

    def __init__(self, credentials: dict[str, str], insecure: bool) -> None:
        self._credentials = {
            reference.parse(name).domain: Credentials.from_header(header)
            for name, header in credentials.items()
        }
        domains = list(self._credentials) if insecure else []
        self._registries = Registries(RegistryConfig(insecure=domains))

    def __enter__(self) -> Places:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._registries.close()

    def repository(self, named: Reference, push: bool = False) -> Repository:
        """The repository of a name."""
        actions = ("pull", "push") if push else ("pull",)
        return self._registries.repository(named, self._credentials.get(named.domain), actions)

    def manifest(self, named: Reference) -> tuple[bytes, Descriptor]:
        """A manifest or list, as the registry has it.

        Raises:
            NotFound: there is none, in docker's words.
        """
        try:
            return self.repository(named).manifest(named.digest or named.tag or "latest")
        except NotInRegistry:
            raise NotFound(f"no such manifest: {named.familiar}") from None

    def image(self, named: Reference) -> ListedImage:
        """The image of a name, with the platform that its configuration tells.

        Raises:
            SampanError: it is a list.
        """
        raw, descriptor = self.manifest(named)
        if descriptor.media_type in media_types.INDEXES:
            raise SampanError(f"{named.familiar} is a manifest list")
        config = json.loads(raw)["config"]
        with self.repository(named).download(
            Descriptor(config["mediaType"], config["digest"], config["size"])
        ) as stream:
            content: dict[str, Any] = json.loads(stream.read(_CONFIG_LIMIT_BYTES))
        names = ("architecture", "os", "os.version", "os.features", "variant")
        platform = {name: content[name] for name in names if content.get(name)}
        return ListedImage(str(named), descriptor.media_type, descriptor.digest, raw, platform)
