"""What containers are and do; knows nothing of HTTP."""

from sampan.engine.core import Core, Exec, ExecConfig, Live
from sampan.engine.engine import Engine
from sampan.engine.events import Event, EventBus
from sampan.engine.logs import LogQuery, stream_logs
from sampan.engine.options import EngineOptions

__all__ = [
    "Core",
    "Engine",
    "EngineOptions",
    "Event",
    "EventBus",
    "Exec",
    "ExecConfig",
    "Live",
    "LogQuery",
    "stream_logs",
]
