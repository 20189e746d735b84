"""What a reload takes over, what it leaves for the next start, and that a broken file changes nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sampan.daemon.reload import reload
from sampan.daemon.settings import load_settings
from sampan.engine import Event, EventBus
from sampan.errors import SampanError
from sampan.http import ServerInfo


class Reloading:
    """Settings from a file, and as much of an engine as a reload touches."""

    def __init__(self, tmp_path: Path, *flags: str, **file: Any) -> None:
        self.path = tmp_path / "daemon.json"
        self.write(**file)
        self.settings = load_settings(["--config-file", str(self.path), *flags])
        self.info = ServerInfo(labels=self.settings.engine.labels)
        self.registries: list[Any] = []
        registries = SimpleNamespace(reload=self.registries.append)
        self.engine: Any = SimpleNamespace(
            id="me", events=EventBus(), images=SimpleNamespace(registries=registries)
        )

    def write(self, **file: Any) -> None:
        self.path.write_text(json.dumps({name.replace("_", "-"): value for name, value in file.items()}))

    def __call__(self) -> None:
        reload(self.settings, self.engine, self.info)

    def events(self) -> list[Event]:
        async def listen() -> list[Event]:
            return [event async for event in self.engine.events.listen(since_ns=0, until_ns=1)]

        return asyncio.run(listen()) or list(self.engine.events._kept)


def test_what_can_change_changes(tmp_path: Path) -> None:
    one = Reloading(tmp_path, labels=["a=1"])
    one.write(
        labels=["a=2", "b=3"], debug=True, default_shm_size="1m", shutdown_timeout=3,
        registry_mirrors=["https://m.example"], max_concurrent_downloads=7,
        runtimes={"own": {"path": "/bin/true", "runtimeArgs": ["--x"]}}, default_runtime="own",
        live_restore=True,
    )  # fmt: skip
    one()
    options = one.settings.engine
    assert one.info.labels == options.labels == ["a=2", "b=3"]
    assert one.info.debug and options.debug and one.settings.log_level == "debug"
    assert (options.default_shm_size, options.shutdown_timeout_s) == (1 << 20, 3)
    assert options.runtimes == {"own": ("/bin/true", "--x")} and options.default_runtime == "own"
    assert one.registries[-1].max_concurrent_downloads == 7
    (event,) = one.events()
    assert (event.type, event.action, event.actor_id) == ("daemon", "reload", "me")
    told = event.attributes
    assert told["labels"] == '["a=2","b=3"]' and told["registry-mirrors"] == '["https://m.example/"]'
    assert (told["debug"], told["live-restore"], told["max-concurrent-downloads"]) == ("true", "true", "7")
    assert (told["default-shm-size"], told["shutdown-timeout"]) == ("1048576", "3")
    assert "own:/bin/true" in told["runtimes"].split() and told["default-runtime"] == "own"
    one.write()
    one()
    assert (options.labels, options.debug, one.settings.log_level) == ([], False, "info")
    assert options.default_runtime == "sampan"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ({"labels": ["b=1"], "nonsense": 1}, "don't match any configuration option"),
        ({"labels": ["b"]}, "must be KEY=VALUE"),
        ({"labels": ["b=1"], "max_concurrent_downloads": 0}, "must be at least 1"),
        ({"labels": ["b=1"], "default_runtime": "no-such"}, "does not exist"),
        ({"labels": ["b=1"], "mtu": 1400}, "both as a flag and in the configuration file"),
        ({"labels": ["b=1"], "live_restore": False}, "always outlive the daemon"),
        ({"labels": ["b=1"], "runtimes": {"x": {"path": "/no/such"}}}, "is no program"),
    ],
)
def test_a_broken_file_changes_nothing(tmp_path: Path, file: dict[str, Any], said: str) -> None:
    one = Reloading(tmp_path, "--mtu", "1500", labels=["a=1"])
    one.write(**file)
    with pytest.raises(SampanError) as caught:
        one()
    assert said in caught.value.message
    assert one.settings.engine.labels == ["a=1"] and not one.events() and not one.registries


def test_what_waits_for_the_next_start_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one = Reloading(tmp_path)
    one.write(bip="10.9.8.1/24", dns=["1.1.1.1"])
    with caplog.at_level("INFO"):
        one()
        assert "only the next start takes over: bip, dns" in caplog.text
        caplog.clear()
        one()
        assert "next start" not in caplog.text and "nothing changed" in caplog.text


@pytest.mark.parametrize(
    ("flags", "file", "said"),
    [
        (["--add-runtime", "x"], {}, "expected NAME=PATH"),
        (["--add-runtime", "sampan=/bin/true"], {}, "is taken by the runtime that is built in"),
        (["--add-runtime", "a=/bin/true", "--add-runtime", "a=/bin/false"], {}, "given twice"),
        ([], {"runtimes": {"x": {"runtimeType": "io.containerd.kata.v2"}}}, "shims"),
        ([], {"runtimes": {"x": {"path": "/bin/true", "options": {}}}}, "not options"),
        (["--log-format", "xml"], {}, "'xml' is none of text, json"),
        (["--metrics-addr", "here"], {}, "must be HOST:PORT"),
    ],
)
def test_refusals(tmp_path: Path, flags: list[str], file: dict[str, Any], said: str) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps(file))
    with pytest.raises(SampanError) as caught:
        load_settings(["--config-file", str(path), *flags])
    assert said in caught.value.message


def test_runtimes_come_from_flags_and_file_together(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text('{"runtimes": {"a": {"path": "/bin/true"}}}')
    settings = load_settings(["--config-file", str(path), "--add-runtime", "b=/bin/false"])
    assert settings.engine.runtimes == {"a": ("/bin/true",), "b": ("/bin/false",)}
