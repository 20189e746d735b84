"""These run where test_machines.py says: they are about a machine's kernel and layout of cgroups."""

from __future__ import annotations

import os

LAYOUT = os.environ.get("SAMPAN_MACHINE", "")
collect_ignore = [
    *([] if LAYOUT == "v2" else [f"test_inside_{name}.py" for name in ("v2", "apparmor", "clock", "doctor")]),
    *([] if LAYOUT in ("hybrid", "v1") else ["test_inside_v1.py"]),
]
