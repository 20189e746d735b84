"""Sampan: a container engine for Linux that speaks Docker's own interfaces."""

__version__ = "0.1.0"
