"""`build --secret`: what is read, and what is refused before anything is sent."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from sampan.cli.building.secrets import header
from sampan.cli.failures import CommandError
from sampan.cli.hosts import Host, Tls


def given(*texts: str, url: str = "unix:///x") -> dict[str, bytes]:
    """What the daemon would be told."""
    value = json.loads(base64.urlsafe_b64decode(header(list(texts), Host(url))))
    return {name: base64.b64decode(text) for name, text in value.items()}


def test_files_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"\0file")
    monkeypatch.setenv("V", "variable")
    monkeypatch.chdir(tmp_path)
    assert given("id=a,src=f", "id=b,env=V", "id=V", "id=f", "type=env,id=c,src=V", "id=d,env=UNSET") == {
        "a": b"\0file",
        "b": b"variable",
        "V": b"variable",
        "f": b"\0file",
        "c": b"variable",
        "d": b"",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("src=f", "secret missing ID"),
        ("id=a,src=nope", "nope: no such file or directory"),
        ("id=a,mode=1", "unexpected key 'mode' in 'mode=1'"),
        ("id=a,type=x", 'unsupported secret type "x"'),
        ("a", "invalid field 'a' must be a key=value pair"),
        ("id=a,src=/dev/zero", "larger than 48 kB"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        given(text)


def test_nothing_is_sent_that_others_could_read() -> None:
    with pytest.raises(CommandError, match="not sent over TCP without TLS"):
        given("id=HOME", url="tcp://127.0.0.1:1")
    host = Host("tcp://127.0.0.1:1")
    host.tls = Tls(True, "", "", "")
    assert header(["id=HOME"], host)
