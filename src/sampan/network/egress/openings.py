"""What is open for a time since a name was answered with it, as the kernel has it in its sets."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from sampan.network.egress.policy import Policy
from sampan.network.egress.rules import Opening


@dataclass(slots=True)
class Held:
    """How long an opening lasts, in the time of `time.monotonic`, and the names that it is there for."""

    until: float
    names: set[str] = field(default_factory=set)


class Openings:
    """All of them, by source address. Not thread-safe; what has ended is passed over, and swept by `of`."""

    def __init__(self) -> None:
        self._of: dict[ipaddress.IPv4Address, dict[Opening, Held]] = {}

    def of(self, source: ipaddress.IPv4Address) -> dict[Opening, Held]:
        """Those of an endpoint."""
        now, theirs = time.monotonic(), self._of.get(source, {})
        for opening in [one for one, held in theirs.items() if held.until <= now]:
            del theirs[opening]
        return dict(theirs)

    def find(self, opening: Opening) -> Held | None:
        """How long one lasts, if it is there."""
        return self._of.get(opening.source, {}).get(opening)

    def put(self, changes: dict[Opening, Held | None]) -> dict[Opening, Held | None]:
        """Have these openings, and those without an end no more; what undoes it."""
        before: dict[Opening, Held | None] = {}
        for opening, held in changes.items():
            theirs = self._of.setdefault(opening.source, {})
            before[opening] = theirs.get(opening)
            if held is not None:
                theirs[opening] = held
            else:
                theirs.pop(opening, None)
        return before

    def drop(self, source: ipaddress.IPv4Address) -> list[Opening]:
        """Forget all of an endpoint; which they were."""
        return list(self._of.pop(source, ()))

    def over(self, source: ipaddress.IPv4Address, policy: Policy) -> list[Opening]:
        """Those of an endpoint that another policy does not have."""
        return [
            opening
            for opening, held in self.of(source).items()
            if not any(one.port == opening.port for name in held.names for one in policy.matching(name))
        ]

    def left(self) -> Iterable[tuple[Opening, float]]:
        """All that last, each with its seconds."""
        now = time.monotonic()
        for theirs in self._of.values():
            for opening, held in theirs.items():
                if held.until > now:
                    yield opening, held.until - now

    def name_of(self, source: ipaddress.IPv4Address, destination: ipaddress.IPv4Address) -> str:
        """What an endpoint was told that an address is the one of; "" when it was not."""
        for opening, held in self._of.get(source, {}).items():
            if opening.destination == destination and held.names:
                return min(held.names)
        return ""
