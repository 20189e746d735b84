"""These run on a machine that test_machines.py boots: they are about its kernel and layout of cgroups."""

from __future__ import annotations

import os

LAYOUT = os.environ.get("SAMPAN_MACHINE", "")
collect_ignore = [
    *([] if LAYOUT == "v2" else ["test_inside_v2.py", "test_inside_apparmor.py"]),
    *([] if LAYOUT in ("hybrid", "v1") else ["test_inside_v1.py"]),
    *([] if LAYOUT == "hybrid" else ["test_inside_doctor.py"]),
]
