"""The kernel's interface and nothing else: no policy, no Docker words.

The start path imports the modules here one by one, since a warm process that forks must stay small; each is
stdlib only. `netlink` is the exception and is imported by the network package alone.
"""
