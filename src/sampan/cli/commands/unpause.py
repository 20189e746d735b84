"""`sampan unpause`: Unpause all processes within one or more containers."""

from sampan.cli.containers.verbs import plain

COMMAND = plain("unpause", "Unpause all processes within one or more containers")
