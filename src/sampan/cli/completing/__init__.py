"""What can stand at the place of the cursor: commands, flags, names that the daemon knows."""
