"""`sampan restart`: Restart one or more containers."""

from sampan.cli.containers.verbs import ending

COMMAND = ending("restart", "Restart one or more containers")
