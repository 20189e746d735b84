"""Sockets, locks and the pid file."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from sampan.daemon.listeners import open_listeners, open_unix, socket_group
from sampan.daemon.locks import RootLock, remove_pidfile, write_pidfile
from sampan.daemon.settings import load_settings
from sampan.errors import Conflict, InvalidParameter
from support.certificates import Authority


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "s")
    listener = open_unix(path, os.getegid())
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    with pytest.raises(Conflict, match="another daemon answers"):
        open_unix(path, os.getegid())
    listener.socket.close()  # as if killed: the file stays
    again = open_unix(path, os.getegid())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    again.close()
    assert os.listdir(tmp_path / "deep") == []


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises((InvalidParameter, Conflict)):
        open_unix(str(tmp_path / "s"), os.getegid())
    assert (tmp_path / "s").read_text() == "precious"


def test_certificates_for_a_unix_socket_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As with dockerd they are loaded, and the socket does without; unlike there it is said."""
    made = Authority(tmp_path / "authority").issue("here", "subjectAltName=DNS:localhost")
    flags = ["--config-file", str(tmp_path / "none"), "-H", f"unix://{tmp_path}/s", "--group", "0", "--tls"]
    (tmp_path / "none").write_text("{}")
    files = ["--tlscert", str(made / "cert.pem"), "--tlskey", str(made / "key.pem")]
    (listener,) = open_listeners(load_settings([*flags, *files]))
    listener.close()
    assert listener.tls is None
    assert "the certificates serve nobody" in caplog.text
    (made / "key.pem").unlink()
    with pytest.raises(InvalidParameter, match=r"key\.pem"):
        open_listeners(load_settings([*flags, *files]))


def test_group() -> None:
    assert socket_group("root", True) == 0
    assert socket_group("no-such-group", False) == os.getegid()
    with pytest.raises(InvalidParameter, match="does not exist"):
        socket_group("no-such-group", True)


def test_root_lock_names_its_holder(tmp_path: Path) -> None:
    lock = RootLock(tmp_path / "lock", "the data root /x")
    with pytest.raises(
        Conflict, match=rf"the data root /x is in use by another sampand \(pid {os.getpid()}\)"
    ):
        RootLock(tmp_path / "lock", "the data root /x")
    lock.release()
    RootLock(tmp_path / "lock", "the data root /x").release()


def test_pidfile(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("999999999")
    write_pidfile(path)
    assert path.read_text() == str(os.getpid())
    remove_pidfile(path)
    assert not path.exists()
