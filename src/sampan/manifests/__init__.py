"""`sampan manifest`: lists of images for several platforms, made on this machine and pushed to a registry.

A program of its own, which the command line becomes: it speaks to registries itself, as docker's client does.
"""
