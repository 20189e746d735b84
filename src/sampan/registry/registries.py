"""All registries, for one daemon: connections, tokens and settings that its pulls and pushes share."""

from __future__ import annotations

import re
from dataclasses import replace

from sampan.errors import InvalidParameter
from sampan.oci.reference import Reference
from sampan.registry.accounts import log_in
from sampan.registry.auth import TokenCache
from sampan.registry.client import HostClient
from sampan.registry.config import RegistryConfig
from sampan.registry.credentials import Credentials, registry_of
from sampan.registry.fetch import WebFile, fetch
from sampan.registry.hosts import HUB, Endpoint, endpoints
from sampan.registry.repository import Repository
from sampan.registry.search import Found, search, split_term
from sampan.registry.transport import Transport

_HUB_SEARCH = "https://index.docker.io/v1"
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")


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
        clients = [
            self._client(endpoint, credentials) for endpoint in endpoints(reference.domain, self.config)
        ]
        return Repository(reference, clients, self.config, actions)

    def log_in(self, credentials: Credentials) -> str:
        """Check credentials with the registry that they name.

        Returns:
            an identity token to keep instead of the password, "" for none.

        Raises:
            InvalidParameter: the registry's name is none.
            RegistryUnauthorized: they are refused.
            RegistryError: the registry cannot be asked.
        """
        domain = registry_of(credentials.server)
        if not _DOMAIN.fullmatch(domain):
            raise InvalidParameter(f"unable to parse server address: {domain[:200]!r} is no host name")
        return log_in(self._client(endpoints(domain, self.config)[-1], credentials, TokenCache()))

    def search(self, term: str, limit: int = 0, credentials: Credentials | None = None) -> list[Found]:
        """Repositories that fit `term`, which may begin with the registry to ask.

        Raises:
            InvalidParameter: the term or the limit cannot be.
            RegistryError: the registry cannot be asked, or has no search.
        """
        domain, rest = split_term(term)
        if not _DOMAIN.fullmatch(domain):
            raise InvalidParameter(f"invalid registry {domain[:200]!r}")
        origin = endpoints(domain, self.config)[-1]
        url = _HUB_SEARCH if domain == HUB else origin.url.removesuffix("/v2") + "/v1"
        return search(self._client(replace(origin, url=url), credentials), rest, limit)

    def fetch(self, url: str) -> WebFile:
        """Begin to fetch any file of the web, by the same proxies; see `sampan.registry.fetch`."""
        return fetch(self._transport, url, self.config.stall_timeout_s)

    def _client(
        self, endpoint: Endpoint, credentials: Credentials | None, tokens: TokenCache | None = None
    ) -> HostClient:
        return HostClient(
            endpoint,
            credentials or Credentials(),
            self._transport,
            self.config,
            tokens or self._tokens,
            self._plain,
            offline=tokens is not None,
        )

    def reload(self, config: RegistryConfig) -> None:
        """Use other settings from the next pull or push on."""
        old, self.config = self._transport, config
        self._transport = Transport(config)
        self._plain = {}
        old.close()

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()
