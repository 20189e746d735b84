"""The command line; talks only HTTP."""
