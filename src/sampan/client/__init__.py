"""The engine from within an asyncio program: `async with sampan.connect() as s`.

Thin: each call is a request of Docker's Engine API to the daemon, which is started when nobody answers.
"""

from sampan.client.containers import Container, Containers
from sampan.client.errors import CommandFailed, ConnectionFailed, DeadlineExceeded
from sampan.client.images import Images
from sampan.client.objects import Networks, Volumes
from sampan.client.process import Completed, Process
from sampan.client.session import Session, connect
from sampan.client.streams import Output, Stream

__all__ = [
    "CommandFailed",
    "Completed",
    "ConnectionFailed",
    "Container",
    "Containers",
    "DeadlineExceeded",
    "Images",
    "Networks",
    "Output",
    "Process",
    "Session",
    "Stream",
    "Volumes",
    "connect",
]
