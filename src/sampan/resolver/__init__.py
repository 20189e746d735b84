"""The DNS server that containers on user-defined networks find at 127.0.0.11: a program of its own.

The daemon's side of it is `sampan.network.resolving`; the two speak by `sampan.resolver.protocol`.
"""
