"""`sampan pause`: Pause all processes within one or more containers."""

from sampan.cli.containers.verbs import plain

COMMAND = plain("pause", "Pause all processes within one or more containers")
