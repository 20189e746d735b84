"""Engine objects as the JSON that the Engine API describes."""
