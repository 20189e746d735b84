"""Content store, tags, and the archive formats."""
