"""The distribution protocol, both sides."""
