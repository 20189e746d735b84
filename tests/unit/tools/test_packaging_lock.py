"""The packages carry what pyproject.toml asks for."""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "packaging"))

import wheels  # noqa: E402  (the path comes first)


def test_the_lock_has_every_requirement() -> None:
    pins = [line.split()[0] for line in wheels.LOCK.read_text().splitlines() if "==" in line]
    locked = dict(pin.split("==") for pin in pins)
    for text in wheels.requirements():
        wanted = Requirement(text)
        version = locked.get(wanted.name)
        assert version is not None and wanted.specifier.contains(version), (
            f"{text} is not in packaging/wheels.lock: run packaging/wheels.py --lock"
        )
