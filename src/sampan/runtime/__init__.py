"""OCI bundle in, process out."""
