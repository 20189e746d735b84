"""`python -m sampan.doctor`."""

from __future__ import annotations

import sys

from sampan.doctor.main import main

sys.exit(main(sys.argv[1:]))
