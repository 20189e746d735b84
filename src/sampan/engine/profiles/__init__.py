"""What a container may do unless it is told otherwise, as data."""
