"""What reading cannot show: each thing that a container's start does is done, apart from everything else."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.doctor.model import Outcome
from sampan.doctor.trials.place import Place, chosen_root
from sampan.doctor.trials.running import Trial, attempt

__all__ = ["run"]


def run(data_root: str) -> list[Outcome]:
    """Try everything, in an order in which what comes later stands on what came before.

    Args:
        data_root: "" for the one that the daemon's configuration names.
    """
    root, outcomes = chosen_root(data_root)
    with Place(root) as place:
        for trial in _all():
            outcomes.append(attempt(trial, place))
    return outcomes


def _all() -> Sequence[Trial]:
    from sampan.doctor.trials import calls, cgroups, disk, namespaces, network, rootless, security

    return (
        *security.RIGHTS, *calls.TRIALS, *namespaces.TRIALS, *disk.TRIALS, *cgroups.TRIALS, *network.TRIALS,
        *security.TRIALS, *rootless.TRIALS,
    )  # fmt: skip
