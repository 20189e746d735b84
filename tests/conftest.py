"""Test set-up shared by every tier: the source tree on the path, and markers that skip by name."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
