"""What containers are and do; knows nothing of HTTP."""
