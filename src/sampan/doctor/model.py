"""What is found: lines about the kernel's configuration, outcomes of trials, and the verdict over both."""

from __future__ import annotations

from dataclasses import field

from sampan.dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One fact.

    Attributes:
        name: as "CONFIG_VETH".
        state: "enabled", "enabled (as module)", "missing", or a value.
        good: whether that is how it should be.
        needed: whether no container runs as it should where it is not good.
        notes: shown below.
    """

    name: str
    state: str
    good: bool = True
    needed: bool = False
    notes: tuple[str, ...] = ()
    rest: str = ""


@dataclass(slots=True)
class Group:
    """Lines under a title; groups may hold groups."""

    title: str
    lines: list[Line] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)

    def all_lines(self) -> list[Line]:
        """Its own and those of the groups in it."""
        return self.lines + [line for group in self.groups for line in group.all_lines()]


WORKS, FAILS, NOT_TRIED = "works", "fails", "not tried"
NEEDS_ROOT = "needs root"  # the detail of what only root can try


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one trial.

    Attributes:
        state: WORKS, FAILS or NOT_TRIED.
        needed: whether the machine is unfit when it fails.
        detail: what was found, or why it failed.
        without: what does not work then.
        remedy: what mends it.
    """

    name: str
    state: str
    needed: bool = False
    detail: str = ""
    without: str = ""
    remedy: str = ""


@dataclass(slots=True)
class Report:
    """All of it.

    Attributes:
        source: the configuration that was read; "" for none.
        release: which kernel it is about.
        assumed: whether the kernel's version is only a guess.
        tried: whether this machine was tried, or only a file was read.
        complete: whether by root, who alone can try everything.
    """

    release: str
    source: str = ""
    assumed: bool = False
    tried: bool = True
    complete: bool = True
    groups: list[Group] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    def missing(self) -> list[Line]:
        """What the configuration would have to have."""
        return [line for group in self.groups for line in group.all_lines() if line.needed and not line.good]

    def failed(self) -> list[Outcome]:
        """The trials whose failure matters."""
        return [one for one in self.outcomes if one.needed and one.state == FAILS]

    @property
    def fit(self) -> bool:
        """Whether containers run here as they should. What was tried counts for more than what was read."""
        return not self.failed() and ((self.tried and self.complete) or not self.missing())
