"""`sampan install-help`: manual pages and completion, where man and the shells look for them.

A program of its own, since pages are written from the daemon's options too: `python -m sampan.manual`.
"""

from sampan.manual.pages import write_man
from sampan.manual.places import completions, install, remove

__all__ = ["completions", "install", "remove", "write_man"]
