"""The program that forwards a container's published ports where the host's own INPUT rules are to decide."""

from __future__ import annotations
