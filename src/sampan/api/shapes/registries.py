"""The JSON of registries: `info`'s RegistryConfig, search results, `/distribution`."""

from __future__ import annotations

from typing import Any

from sampan.oci.image import Descriptor, Platform
from sampan.registry import Found, RegistryConfig


def registry_config(config: RegistryConfig) -> dict[str, Any]:
    """What `info` tells of registries."""
    indexes = {
        host: {"Name": host, "Mirrors": [], "Secure": False, "Official": False}
        for host in config.insecure_hosts
    }
    hub = {"Name": "docker.io", "Mirrors": config.mirrors, "Secure": True, "Official": True}
    return {
        "InsecureRegistryCIDRs": config.insecure_networks,
        "IndexConfigs": {"docker.io": hub, **indexes},
        "Mirrors": config.mirrors,
    }


def found(item: Found) -> dict[str, Any]:
    """One search result."""
    return {
        "star_count": item.star_count,
        "is_official": item.is_official,
        "name": item.name,
        "is_automated": False,
        "description": item.description,
    }


def distribution(descriptor: Descriptor, platforms: list[Platform]) -> dict[str, Any]:
    """`GET /distribution/{name}/json`."""
    return {
        "Descriptor": {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        },
        "Platforms": [_platform(platform) for platform in platforms],
    }


def _platform(platform: Platform) -> dict[str, str]:
    members = {
        "architecture": platform.architecture,
        "os": platform.os,
        "os.version": platform.os_version,
        "variant": platform.variant,
    }
    return {key: value for key, value in members.items() if value or key in ("architecture", "os")}
