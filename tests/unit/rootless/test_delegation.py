"""What a user is told who gets no cgroup, or not all controllers; tests/machines/test_systemd.py gets one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sampan.errors import SampanError
from sampan.linux.cgroups import files, layout
from sampan.rootless import delegation


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The runtime directory of a user on a machine with cgroup v2, where nothing is given to anybody."""
    monkeypatch.setattr(layout, "detect", lambda: layout.Layout(2, str(tmp_path / "cgroup")))
    monkeypatch.setattr(delegation, "_own", lambda: "/session")
    (tmp_path / "cgroup/session").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    busctl(tmp_path, "exit 0")
    return tmp_path / "run"


def busctl(place: Path, script: str) -> None:
    """Put another program in the place of systemd's."""
    program = place / "bin/busctl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def refusal(exec_root: Path) -> str:
    with pytest.raises(SampanError) as caught:
        delegation.obtain(exec_root)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_cgroup_v1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(layout, "detect", lambda: layout.Layout(1, "/unified", {"memory": "/memory"}))
    assert "systemd.unified_cgroup_hierarchy=1" in refusal(tmp_path)


def test_no_systemd_of_the_user(runtime: Path) -> None:
    assert "`sudo loginctl enable-linger " in refusal(runtime / "sampan")


def test_no_bus(runtime: Path) -> None:
    (runtime / "systemd").mkdir()
    (runtime / "systemd/private").touch()
    assert "apt-get install dbus-user-session" in refusal(runtime / "sampan")


def test_what_systemd_says_is_passed_on(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (runtime / "bus").touch()
    busctl(runtime.parent, "echo 'Call failed: Access denied' >&2; exit 1")
    assert refusal(runtime / "sampan").endswith("refuses StartTransientUnit: Access denied")

    def barred(path: str, _: str) -> None:
        raise PermissionError(13, "across a boundary that is root's", path)

    monkeypatch.setattr(files, "write", barred)
    with pytest.raises(SampanError, match="cannot be entered: the user's systemd refuses AttachProcesses"):
        delegation.move_into(delegation.Cgroup(str(runtime), "", "sampan.scope"), "daemon")


def test_a_move_that_fails_is_noticed(runtime: Path) -> None:
    """The call only begins it; when it fails, the scope has gone."""
    (runtime / "bus").touch()
    busctl(runtime.parent, 'case "$*" in *GetUnit*) echo "Call failed: Unit not loaded." >&2; exit 1;; esac')
    assert "refuses GetUnit: Unit not loaded." in refusal(runtime / "sampan")


def test_a_scope_that_somebody_lives_in_is_left_alone(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (runtime / "bus").touch()
    taken = "Call failed: Unit sampan.scope was already loaded or has a fragment file."
    busctl(runtime.parent, f'case "$*" in *" sampan.scope "*) echo "{taken}" >&2; exit 1;; esac')
    name = f"sampan-{os.getpid()}.scope"
    monkeypatch.setattr(delegation, "_own", lambda: f"/user/{name}")
    found = delegation.obtain(runtime / "sampan")
    assert (found.path, found.unit) == (f"/user/{name}", name)
    assert delegation.unit_name(Path("/elsewhere")) not in ("sampan.scope", name)


def test_controllers_that_are_not_handed_down(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (said,) = delegation.shortcomings(delegation.Cgroup(str(tmp_path), ""))
    assert "controllers cpuset, io," in said and "Delegate=cpu cpuset io memory pids" in said
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert delegation.shortcomings(delegation.Cgroup(str(tmp_path), "")) == []
