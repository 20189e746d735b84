"""Layers to root file systems."""
