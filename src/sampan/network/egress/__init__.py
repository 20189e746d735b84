"""Egress policies: where containers may connect to, enforced outside of them (docs/egress.md)."""

from __future__ import annotations

from sampan.network.egress.guard import Guard
from sampan.network.egress.policy import Policy, parse
from sampan.network.egress.refusals import Refusal
from sampan.network.egress.rules import Lane, Opening

__all__ = ["Guard", "Lane", "Opening", "Policy", "Refusal", "parse"]
