"""A kernel whose veth pairs are a module that cannot be loaded: never a riddle, always a remedy."""

from __future__ import annotations

from pathlib import Path

from sampan.doctor.model import FAILS, WORKS, Outcome
from sampan.doctor.trials import namespaces, network
from sampan.doctor.trials.place import Place
from sampan.doctor.trials.running import attempt
from support.engine import Daemon


def tried_here(names: tuple[str, ...]) -> dict[str, Outcome]:
    """What comes of some of the doctor's trials; all of them would take long on an emulated machine."""
    chosen = [trial for trial in (*network.TRIALS, *namespaces.TRIALS) if trial.name in names]
    with Place(Path("/tmp")) as place:
        return {trial.name: attempt(trial, place) for trial in chosen}


def test_without_veth(no_veth: None, daemon: Daemon) -> None:
    tried = tried_here(("veth", "container on a bridge", "mount namespace", "bridge"))
    states = {name: outcome.state for name, outcome in tried.items()}
    assert states == {
        "veth": FAILS, "container on a bridge": FAILS, "mount namespace": WORKS, "bridge": WORKS
    }  # fmt: skip
    assert tried["veth"].needed and "CONFIG_VETH" in tried["veth"].detail
    assert "modprobe veth" in tried["veth"].remedy
    refused = daemon.docker("run", "--rm", daemon.busybox, "true", code=125).err
    assert "no veth pairs" in refused and "modprobe veth" in refused and "CONFIG_VETH" in refused
    assert daemon.docker("run", "--rm", "--network", "none", daemon.busybox, "echo", "up").lines == ["up"]
