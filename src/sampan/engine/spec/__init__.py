"""Docker's words turned into the OCI runtime spec: what a container is, as its config.json says it."""

from __future__ import annotations

from sampan.engine.spec.build import build_spec
from sampan.engine.spec.inputs import SpecInputs
from sampan.engine.spec.process import exec_process
from sampan.engine.spec.security import confined_by
from sampan.engine.spec.users import User, lookup_user
from sampan.engine.spec.validate import storage_size, validate_host_config

__all__ = [
    "SpecInputs",
    "User",
    "build_spec",
    "confined_by",
    "exec_process",
    "lookup_user",
    "storage_size",
    "validate_host_config",
]
