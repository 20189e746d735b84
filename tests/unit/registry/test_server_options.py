"""The registry's command line: what it decides, and what it refuses in one line."""

from pathlib import Path

import pytest

from sampan.errors import SampanError
from sampan.http import server_context
from sampan.registry.server.__main__ import main
from sampan.registry.server.options import duration, parse
from sampan.registry.server.service import bind, make_guard


def test_defaults():
    settings = parse(["serve"])
    assert settings.listen == ["127.0.0.1:5000"]
    assert settings.limits.manifest_bytes == 4 << 20
    assert (settings.gc_interval_s, settings.proxy, settings.tokens) == (0.0, None, None)
    assert settings.deletable
    assert settings.with_page
    assert not settings.read_only


def test_values():
    settings = parse(
        ["serve", "--root", "/r", "--listen", ":1", "--listen", "[::1]:2", "--max-blob", "1g", "--read-only",
         "--gc-grace", "90m", "--upload-expiry", "2h", "--no-delete", "--no-page", "--gc-interval", "1d"]
    )  # fmt: skip
    assert settings.root == Path("/r")
    assert settings.listen == [":1", "[::1]:2"]
    assert (settings.limits.blob_bytes, settings.limits.grace_s) == (1 << 30, 5400)
    assert (settings.limits.upload_expiry_s, settings.gc_interval_s) == (7200, 86400)
    assert (settings.deletable, settings.with_page, settings.read_only) == (False, False, True)


def test_a_cache_collects_by_itself():
    assert parse(["serve", "--proxy", "https://x"]).gc_interval_s == 3600
    assert parse(["serve", "--proxy", "https://x", "--proxy-keep", "1m"]).gc_interval_s == 60
    assert parse(["serve", "--proxy", "https://x", "--proxy-keep", "0"]).gc_interval_s == 0
    assert parse(["serve", "--proxy", "https://x/", "--gc-interval", "5s"]).gc_interval_s == 5
    assert parse(["serve", "--proxy", "https://x:1/"]).proxy.url == "https://x:1"


def test_durations():
    assert [duration(text) for text in ("0", "90s", "1h30m", "7d", "250ms", "1.5s")] == [
        0, 90, 5400, 604800, 0.25, 1.5,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "expected a command"),
        (["frob"], "expected a command"),
        (["serve", "--frobnicate"], "unrecognized arguments: --frobnicate"),
        (["serve", "extra"], "unrecognized arguments: extra"),
        (["serve", "--max-blob=many"], "invalid size: 'many'"),
        (["serve", "--gc-interval=soon"], "is not a duration"),
        (["serve", "--gc-grace=-5s"], "is not a duration"),
        (["serve", "--token-realm=https://x"], "needs --token-service, --token-issuer, --token-bundle"),
        (["serve", "--proxy=ftp://x"], "is not the URL of a registry"),
        (["serve", "--proxy=https://x/v2"], "is not the URL of a registry"),
        (["serve", "--proxy-user=x"], "need --proxy"),
        (["serve", "--proxy=https://x", "--proxy-user=x"], "go together"),
        (["serve", '--realm=a"b'], "--realm"),
        (["serve", "--log-level=loud"], "invalid choice: 'loud'"),
        (["gc", "--root"], "expected one argument"),
    ],
)
def test_wrong_command_lines(words, expected, capsys):
    assert main(words) == 125
    said = capsys.readouterr().err
    assert expected in said
    assert len(said.splitlines()) == 1


def test_what_cannot_be_used(tmp_path):
    with pytest.raises(SampanError, match="nowhere: No such file"):
        make_guard(parse(["serve", "--htpasswd", "/nowhere"]))
    with pytest.raises(SampanError, match="nowhere: cannot be read"):
        server_context("/nowhere", "/nowhere")
    (tmp_path / "x").write_text("no certificate")
    with pytest.raises(SampanError, match="x, "):
        server_context(str(tmp_path / "x"), str(tmp_path / "x"))
    for address in ("x:y:z", "127.0.0.1:70000", "127.0.0.1:x"):
        with pytest.raises(SampanError, match="is not ADDRESS:PORT"):
            bind(address)
    first = bind("127.0.0.1:0")[0]
    with pytest.raises(SampanError, match="Address already in use"):
        bind(f"127.0.0.1:{first.getsockname()[1]}")
    first.close()


def test_both_ways_of_asking_exclude_each_other():
    tokens = ["--token-realm=x", "--token-service=x", "--token-issuer=x", "--token-bundle=x"]
    with pytest.raises(SampanError, match="exclude each other"):
        parse(["serve", "--htpasswd", "x", *tokens])
