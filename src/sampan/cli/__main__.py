"""`python -m sampan.cli` is `sampan`."""

from sampan.cli import main

main()
