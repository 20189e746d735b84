"""Which daemon is whose: the machine's for root, the user's own where the machine's is not theirs."""

import os
from pathlib import Path

import pytest

from sampan import places
from sampan.errors import InvalidParameter


@pytest.fixture
def mate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An ordinary user whose runtime directory is the one returned."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    monkeypatch.setattr(places, "SOCKET", str(tmp_path / "machine.sock"))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/mate")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_a_users_own(mate: Path) -> None:
    assert places.default_socket() == f"{mate}/sampan.sock"
    own = places.of_user()
    assert (own.config, own.data_root) == (
        "/home/mate/.config/sampan/daemon.json",
        "/home/mate/.local/share/sampan",
    )
    assert (own.exec_root, own.socket) == (f"{mate}/sampan", f"{mate}/sampan.sock")


def test_the_machines_where_one_may(mate: Path) -> None:
    (mate / "machine.sock").touch()
    assert places.default_socket() == f"{mate}/machine.sock"


def test_without_a_login_there_is_none(mate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    assert places.default_socket() == places.SOCKET
    with pytest.raises(InvalidParameter, match="XDG_RUNTIME_DIR"):
        places.of_user()
