"""The distribution protocol.

`Registries` is what pulls and pushes start from: it gives a `Repository`, with manifests, blobs and tags.
"""

from sampan.registry.config import COMPRESSIONS, RegistryConfig
from sampan.registry.credentials import Credentials
from sampan.registry.download import Download
from sampan.registry.errors import (
    InvalidAnswer,
    InvalidRegistryConfig,
    NotInRegistry,
    RegistryDenied,
    RegistryError,
    RegistryUnauthorized,
    RegistryUnreachable,
    TooManyRequests,
)
from sampan.registry.proxies import Proxies
from sampan.registry.registries import Registries
from sampan.registry.repository import Repository
from sampan.registry.search import Found

__all__ = [
    "COMPRESSIONS",
    "Credentials",
    "Download",
    "Found",
    "InvalidAnswer",
    "InvalidRegistryConfig",
    "NotInRegistry",
    "Proxies",
    "Registries",
    "RegistryConfig",
    "RegistryDenied",
    "RegistryError",
    "RegistryUnauthorized",
    "RegistryUnreachable",
    "Repository",
    "TooManyRequests",
]
