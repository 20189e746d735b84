"""`sampan stop`: Stop one or more running containers."""

from sampan.cli.containers.verbs import ending

COMMAND = ending("stop", "Stop one or more running containers")
