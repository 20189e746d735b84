"""What `run` and `create` share: flags, and the request body that they make."""
