"""Log drivers: which there are, their options, how their files are read, and how lines are sent on.

The names are imported from the modules one by one: the shipper, a process of its own, has to stay small.
"""
