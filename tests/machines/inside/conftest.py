"""These run where test_machines.py says: they are about a machine's kernel and layout of cgroups."""

from __future__ import annotations

import os

LAYOUT = os.environ.get("SAMPAN_MACHINE", "")
collect_ignore = [
    *([] if LAYOUT == "v2" else ["test_inside_v2.py", "test_inside_apparmor.py", "test_inside_doctor.py"]),
    *([] if LAYOUT in ("hybrid", "v1") else ["test_inside_v1.py"]),
]
