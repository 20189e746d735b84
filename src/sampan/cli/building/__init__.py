"""Build contexts: which local files are sent, and how."""
