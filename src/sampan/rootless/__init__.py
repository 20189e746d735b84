"""A daemon without the machine's root: namespaces of its own, and the process outside that keeps them."""

from __future__ import annotations
