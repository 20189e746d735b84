"""All registries, for one daemon: connections, tokens and settings that its pulls and pushes share."""

from __future__ import annotations

from sampan.oci.reference import Reference
from sampan.registry.auth import TokenCache
from sampan.registry.client import HostClient
from sampan.registry.config import RegistryConfig
from sampan.registry.credentials import Credentials
from sampan.registry.hosts import HUB, endpoints
from sampan.registry.repository import Repository
from sampan.registry.transport import Transport


class Registries:
    """Registries by name. Every call may come from any thread.

    Args:
        config: the daemon's settings.
    """

    def __init__(self, config: RegistryConfig | None = None) -> None:
        self.config = config or RegistryConfig()
        self._transport = Transport(self.config)
        self._tokens = TokenCache()
        self._plain: dict[str, bool] = {}

    def repository(
        self,
        reference: Reference,
        credentials: Credentials | None = None,
        actions: tuple[str, ...] = ("pull",),
    ) -> Repository:
        """The repository that a reference names; nothing is asked of the registry yet.

        Raises:
            InvalidRegistryConfig: hosts.toml or the certificates of this registry cannot be used.
        """
        return Repository(reference, self.clients(reference.domain, credentials), self.config, actions)

    def clients(self, domain: str, credentials: Credentials | None = None) -> list[HostClient]:
        """The addresses of a registry, mirrors first."""
        return [
            HostClient(
                endpoint,
                credentials or Credentials(),
                self._transport,
                self.config,
                self._tokens,
                self._plain,
            )
            for endpoint in endpoints(domain, self.config)
        ]

    def reload(self, config: RegistryConfig) -> None:
        """Use other settings from the next pull or push on."""
        old, self.config = self._transport, config
        self._transport = Transport(config)
        self._plain = {}
        old.close()

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()


__all__ = ["HUB", "Registries"]
