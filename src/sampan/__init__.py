"""Sampan: a container engine for Linux that speaks Docker's own interfaces."""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.client import connect as connect


def __getattr__(name: str) -> "Any":
    """Load the client with its first use: programs of ours import this package too (PEP 562)."""
    if name != "connect":
        raise AttributeError(f"module 'sampan' has no attribute {name!r}")
    from sampan.client import connect

    return connect
