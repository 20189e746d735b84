"""What is open for a time since a name was answered with it, as the kernel has it in its sets."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import field

from sampan.dataclasses import dataclass
from sampan.network.egress.policy import IPAddress, Policy
from sampan.network.egress.rules import Opening


@dataclass(slots=True)
class Held:
    """How long an opening lasts, in the time of `time.monotonic`, and the names that it is there for."""

    until: float
    names: set[str] = field(default_factory=set)


class Openings:
    """All of them, by source address. Not thread-safe; what has ended is passed over, and swept by `of`."""

    def __init__(self) -> None:
        self._of: dict[IPAddress, dict[Opening, Held]] = {}

    def of(self, source: IPAddress) -> dict[Opening, Held]:
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

    def drop(self, source: IPAddress) -> list[Opening]:
        """Forget all of an endpoint; which they were."""
        return list(self._of.pop(source, ()))

    def under(self, source: IPAddress, policy: Policy, most: int) -> dict[Opening, Held | None]:
        """What changes of an endpoint's when it has another policy: None for those that are over.

        Args:
            most: no more are to be open then.
        """
        old, new = self.of(source), dict[Opening, Held]()
        for opening, held in old.items():
            for name in held.names:
                for ports in policy.ports_of(name):
                    one = Opening(source, opening.destination, ports)
                    found = new.setdefault(one, Held(held.until))
                    found.until = max(found.until, held.until)
                    found.names.add(name)
        kept = [one for one in new if one in old]
        wanted = kept + [one for one in new if one not in old][: max(0, most - len(kept))]
        changes: dict[Opening, Held | None] = {one: None for one in old if one not in new}
        return changes | {one: new[one] for one in wanted if new[one] != old.get(one)}

    def left(self) -> Iterable[tuple[Opening, float]]:
        """All that last, each with its seconds."""
        now = time.monotonic()
        for theirs in self._of.values():
            for opening, held in theirs.items():
                if held.until > now:
                    yield opening, held.until - now

    def name_of(self, source: IPAddress, destination: IPAddress) -> str:
        """What an endpoint was told that an address is the one of; "" when it was not."""
        for opening, held in self._of.get(source, {}).items():
            if opening.destination == destination and held.names:
                return min(held.names)
        return ""
