"""The types of the OCI specifications: runtime config, image manifest and config, digests, references."""
