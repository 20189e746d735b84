"""`--log-driver`: what receivers get, what `logs` reads back, and what a receiver that is not there costs."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.certificates import Authority
from support.cli import Cli
from support.engine import Daemon, Engine
from support.machine import eventually, status_field
from support.receivers import Datagrams, Stream, unpack

Names = Callable[[], str]
LINES = "yes $(head -c 99 /dev/zero | tr '\\0' y)"  # without end, 100 bytes each
BOTH = "echo to stdout; sleep 0.2; echo to stderr >&2"


def options(driver: str, **given: str) -> list[str]:
    """Flags for a driver, and for its options with underscores for dashes."""
    words = [f"--log-opt={name.replace('_', '-')}={value}" for name, value in given.items()]
    return ["--log-driver", driver, *words]


# --- files ---


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_local_logs_are_read_across_rotation(
    cli: Cli, engine: Engine, busybox: str, name: Names, driver: str
) -> None:
    one = name()
    flags = options(driver, max_size="20k", max_file="100", compress="true")
    cli("run", "--name", one, *flags, busybox, "sh", "-c", "for i in $(seq 3000); do echo line $i; done")
    assert cli("logs", one).out.split("\n")[:-1] == [f"line {n}" for n in range(1, 3001)]
    assert cli("logs", "-n", "1500", one).out.split("\n")[0] == "line 1501"
    stamped = cli("logs", "-t", "-n", "1", one).out
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line 3000\n", stamped)
    shown = engine.api.inspect(one)
    assert shown["HostConfig"]["LogConfig"]["Type"] == driver
    assert bool(shown["LogPath"]) == (driver == "json-file")


def test_following_a_local_log_ends_with_the_container(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    script = "for i in $(seq 20); do echo $i; sleep 0.05; done"
    cli("run", "-d", "--name", one, *options("local", max_size="100"), busybox, "sh", "-c", script)
    lines = cli("logs", "-f", one).out.split()
    assert lines == [str(n) for n in range(int(lines[0]), 21)]


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_disk_that_does_not_take_the_log_stops_no_container(
    cli: Cli, engine: Engine, busybox: str, name: Names, driver: str
) -> None:
    one = name()
    flags = options(driver, mode="non-blocking", max_buffer_size="100k", max_size="100m")
    script = f"while ! test -e /go; do sleep 0.05; done; {LINES} | head -c 3000000; echo end"
    cli("run", "-d", "--name", one, *flags, busybox, "sh", "-c", script)
    monitor = int(status_field(engine.api.pid(one), "PPid"))

    def writers() -> list[int]:
        names = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in children_of(monitor)}
        return [pid for pid, comm in names.items() if comm == "sampan-log\n"]

    eventually(lambda: len(writers()) == 1)
    [writer] = writers()
    os.kill(writer, signal.SIGSTOP)
    cli("exec", one, "touch", "/go")
    eventually(lambda: status_field(monitor, "State")[0] == "S" and len(children_of(monitor)) == 1)
    os.kill(writer, signal.SIGCONT)
    eventually(lambda: engine.api.inspect(one)["State"]["Status"] == "exited")
    lines = cli("logs", one).out.split("\n")[:-1]
    assert all(re.fullmatch("y{1,99}|end", line) for line in lines)  # cut where room ended, never joined
    assert 1000 < len(lines) < 30_000


def children_of(pid: int) -> list[int]:
    """The processes whose parent it is."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_details_show_labels_and_tag(cli: Cli, busybox: str, name: Names) -> None:
    one = name()
    flags = options("json-file", labels="team", env_regex="^ZO", tag="{{.Name}}")
    cli("run", "--name", one, *flags, "-l", "team=a", "-e", "ZONE=eu", busybox, "echo", "x")
    assert cli("logs", "--details", one).out == f"ZONE=eu,tag={one},team=a x\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (options("nosuch"), "no log driver named 'nosuch' is registered"),
        (options("local", tag="x"), "unknown log opt 'tag' for log driver local"),
        (options("syslog", syslog_adress="x"), "unknown log opt 'syslog-adress' for syslog log driver"),
        (options("syslog", syslog_address="x"), "syslog-address should be in form proto://address, got x"),
        (options("syslog", syslog_facility="x"), "invalid syslog facility"),
        (options("gelf"), "gelf-address is a required parameter"),
    ],
)
def test_what_is_not_offered_is_refused_at_create(
    cli: Cli, busybox: str, name: Names, flags: list[str], words: str
) -> None:
    assert words in cli("create", "--name", name(), *flags, busybox, code=None).err


def test_info_lists_the_drivers(engine: Engine) -> None:
    info = engine.api("GET", "/info").json()
    assert info["LoggingDriver"] == "json-file"
    assert {"fluentd", "gelf", "journald", "json-file", "local", "syslog"} <= set(info["Plugins"]["Log"])


# --- syslog ---


@pytest.mark.parametrize(
    ("form", "head"),
    [
        ("", r"<{}>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d {}\[\d+\]: "),
        ("rfc3164", r"<{}>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d \S+ {}\[\d+\]: "),
        ("rfc5424", r"<{}>1 \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d(?:Z|[+-]\d\d:\d\d) \S+ {} \d+ {} - "),
        ("rfc5424micro", r"<{}>1 \d{{4}}-\d\d-\d\dT[\d:]{{8}}\.\d{{6}}(?:Z|[+-]\d\d:\d\d) \S+ {} \d+ {} - "),
    ],
)
def test_syslog_formats(engine: Engine, busybox: str, name: Names, form: str, head: str) -> None:
    one, server = name(), Stream()
    flags = options("syslog", syslog_address=f"tcp://127.0.0.1:{server.port}", syslog_facility="local3")
    flags += options("syslog", tag="t/{{.Name}}", **({"syslog_format": form} if form else {}))
    engine.docker("run", "--name", one, *flags, busybox, "sh", "-c", BOTH)
    eventually(lambda: server.data.count(b"\n") == 2)
    out, err = server.data.decode().splitlines()
    tag = f"t/{one}"
    assert re.fullmatch(head.format(19 * 8 + 6, tag, tag) + "to stdout", out), out
    assert re.fullmatch(head.format(19 * 8 + 3, tag, tag) + "to stderr", err), err
    assert engine.docker("logs", one).out == "to stdout\n"
    server.close()


def test_syslog_by_datagrams(engine: Engine, busybox: str, name: Names, tmp_path: Path) -> None:
    udp, unix = Datagrams(), Datagrams(str(tmp_path / "log"))
    for address in (f"udp://127.0.0.1:{udp.port}", f"unixgram://{tmp_path}/log"):
        flags = options("syslog", syslog_address=address)
        engine.docker("run", "--rm", *flags, busybox, "echo", "hello")
    for receiver in (udp, unix):
        eventually(lambda receiver=receiver: receiver.packets)
        assert receiver.packets[0].endswith(b": hello\n") and receiver.packets[0].startswith(b"<30>")
        receiver.close()


def test_syslog_over_tls(engine: Engine, busybox: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    own = authority.issue("server", "subjectAltName=IP:127.0.0.1\n")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own / "cert.pem", own / "key.pem")
    server = Stream(tls=context)
    address = f"tcp+tls://127.0.0.1:{server.port}"
    flags = options("syslog", syslog_address=address, syslog_format="rfc5424", tag="t")
    trusted = options("syslog", syslog_tls_ca_cert=str(authority.certificate))
    engine.docker("run", "--rm", *flags, *trusted, busybox, "echo", "secret")
    eventually(lambda: server.data)
    length, _, message = server.data.partition(b" ")
    assert int(length) == len(message) and message.endswith(b" t - secret\n")  # RFC 5425's frames
    refused = engine.docker("run", "--rm", *flags, busybox, "true", code=None)
    assert "certificate verify failed" in refused.err
    skipped = options("syslog", syslog_tls_skip_verify="true")
    engine.docker("run", "--rm", *flags, *skipped, busybox, "echo", "unverified")
    eventually(lambda: b"unverified" in server.data)
    server.close()


# --- gelf ---


@pytest.mark.parametrize("compression", ["gzip", "zlib", "none"])
def test_gelf_over_udp(engine: Engine, busybox: str, name: Names, compression: str) -> None:
    import zlib

    one, server = name(), Datagrams()
    flags = options("gelf", gelf_address=f"udp://127.0.0.1:{server.port}", gelf_compression_type=compression)
    flags += options("gelf", labels="team")
    script = "echo short; sleep 0.1; head -c 9000 /dev/urandom | base64 -w 0; echo"
    engine.docker("run", "--name", one, *flags, "-l", "team=a", busybox, "sh", "-c", script)
    long = engine.docker("logs", one).out.splitlines()[1]
    unpacked = {"gzip": gzip.decompress, "zlib": zlib.decompress, "none": bytes}[compression]
    eventually(lambda: len(server.packets) > 1 and server.packets[-1][10] == server.packets[-1][11] - 1)
    first = json.loads(unpacked(server.packets[0]))
    assert (first["version"], first["short_message"], first["level"]) == ("1.1", "short", 6)
    assert first["_container_name"] == one and first["_team"] == "a" and first["_command"].startswith("sh -c")
    chunks = server.packets[1:]
    assert len({chunk[2:10] for chunk in chunks}) == 1 and all(c[:2] == b"\x1e\x0f" for c in chunks)
    whole = b"".join(chunk[12:] for chunk in sorted(chunks, key=lambda chunk: chunk[10]))
    assert json.loads(unpacked(whole))["short_message"] == long
    server.close()


def test_gelf_over_tcp(engine: Engine, busybox: str) -> None:
    server = Stream()
    flags = options("gelf", gelf_address=f"tcp://127.0.0.1:{server.port}")
    engine.docker("run", "--rm", *flags, busybox, "sh", "-c", BOTH)
    eventually(lambda: server.data.count(b"\0") == 2)
    messages = [json.loads(one) for one in server.data.split(b"\0")[:-1]]
    assert [(one["short_message"], one["level"]) for one in messages] == [("to stdout", 6), ("to stderr", 3)]
    server.close()


# --- fluentd ---


def fluentd_lines(data: bytes) -> list[tuple[str, object, dict[str, str]]]:
    """Tag, time and record of each line."""
    found, at = [], 0
    while at < len(data):
        (tag, entries, *_), at = unpack(data, at)
        found += [(tag, when, record) for when, record in entries]
    return found


@pytest.mark.parametrize("precise", ["true", "false"])
def test_fluentd_with_acknowledgements(engine: Engine, busybox: str, name: Names, precise: str) -> None:
    one, server = name(), Stream(answer=acknowledge)
    flags = options(
        "fluentd", fluentd_address=f"127.0.0.1:{server.port}", fluentd_request_ack="true",
        fluentd_sub_second_precision=precise, tag="docker.{{.Name}}", env="ZONE",
    )  # fmt: skip
    engine.docker("run", "--name", one, *flags, "-e", "ZONE=eu", busybox, "sh", "-c", BOTH)
    eventually(lambda: server.data.count(b"to std") == 2)
    lines = fluentd_lines(server.data)
    assert [(tag, record["source"], record["log"]) for tag, _, record in lines] == [
        (f"docker.{one}", "stdout", "to stdout"),
        (f"docker.{one}", "stderr", "to stderr"),
    ]
    assert lines[0][2]["container_name"] == f"/{one}" and lines[0][2]["ZONE"] == "eu"
    when = lines[0][1]
    assert abs((when[0] if isinstance(when, tuple) else when) - time.time()) < 60
    assert isinstance(when, tuple) == (precise == "true")
    server.close()


# --- journald ---


def test_journald_gets_fields_and_large_entries(engine: Engine, busybox: str, name: Names) -> None:
    path = Path("/run/systemd/journal/socket")
    if path.exists():
        pytest.skip("this machine has a journal of its own")
    made = [folder for folder in (path.parent.parent, path.parent) if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    journal = Datagrams(str(path))
    try:
        one = name()
        flags = options("journald", labels="my-team", tag="{{.Name}}")
        engine.docker("run", "--name", one, *flags, "-l", "my-team=a", busybox, "sh", "-c", BOTH)
        eventually(lambda: len(journal.packets) == 2)
        fields = dict(line.split(b"=", 1) for line in journal.packets[1].splitlines())
        assert fields[b"MESSAGE"] == b"to stderr" and fields[b"PRIORITY"] == b"3"
        assert fields[b"CONTAINER_NAME"] == fields[b"SYSLOG_IDENTIFIER"] == one.encode()
        assert fields[b"MY_TEAM"] == b"a" and len(fields[b"CONTAINER_ID"]) == 12
        assert engine.docker("logs", one).out == "to stdout\n"
    finally:
        journal.close()
        path.unlink()
        for folder in reversed(made):
            folder.rmdir()
    refused = engine.docker("run", "--rm", "--log-driver", "journald", busybox, "true", code=None)
    assert "journald is not enabled on this host" in refused.err


# --- receivers that are not there ---


def test_a_receiver_that_is_down_refuses_the_start(cli: Cli, busybox: str, name: Names) -> None:
    server = Stream()
    server.close()
    flags = options("syslog", syslog_address=f"tcp://127.0.0.1:{server.port}")
    result = cli("run", "--name", name(), *flags, busybox, "true", code=None)
    assert (
        "failed to initialize logging driver: dial tcp" in result.err and "connection refused" in result.err
    )


def test_lines_wait_for_a_receiver_that_comes_later(engine: Engine, busybox: str, name: Names) -> None:
    server = Stream()
    server.close()
    one = name()
    flags = options(
        "fluentd",
        fluentd_address=f"127.0.0.1:{server.port}",
        fluentd_async="true",
        fluentd_retry_wait="100ms",
    )
    engine.docker("run", "--name", one, *flags, busybox, "sh", "-c", BOTH)
    assert engine.api.inspect(one)["State"]["Status"] == "exited"
    late = Stream(server.port)
    eventually(lambda: late.data.count(b"to std") == 2)
    late.close()


def acknowledge(piece: bytes) -> bytes:
    """Fluentd's answer to a message that fits into one piece, as those of a slow log do."""
    chunk = unpack(piece)[0][2]["chunk"].encode()
    return b"\x81\xa3ack" + bytes([0xA0 | len(chunk)]) + chunk


def test_nothing_is_lost_when_receiver_shipper_and_daemon_die(
    make_daemon: Callable[..., Daemon], request: pytest.FixtureRequest
) -> None:
    daemon = make_daemon().start()
    request.addfinalizer(daemon.end)
    server = Stream(answer=acknowledge)
    flags = options(
        "fluentd", fluentd_address=f"127.0.0.1:{server.port}", fluentd_request_ack="true",
        fluentd_retry_wait="100ms",
    )  # fmt: skip
    script = "i=0; while [ $i -lt 600 ]; do i=$((i+1)); echo number $i.; sleep 0.01; done"
    one = daemon.docker("run", "-d", *flags, daemon.busybox, "sh", "-c", script).out.strip()
    got = b""

    def wait_for(number: int) -> None:
        eventually(lambda: b"number %d." % number in server.data, timeout=60)

    wait_for(100)
    (shipper,) = children(daemon.pid, "sampan.logdrivers.shipper")
    os.kill(shipper, signal.SIGKILL)
    wait_for(250)
    server.close()
    time.sleep(0.5)
    got += server.data
    server = Stream(server.port, answer=acknowledge)
    wait_for(400)
    daemon.kill9()
    daemon.start()
    daemon.api("POST", f"/containers/{one}/wait")
    wait_for(600)
    got += server.data
    numbers = [int(text) for text in re.findall(rb"number (\d+)\.", got)]
    assert set(numbers) == set(range(1, 601))
    assert len(numbers) < 900  # what was on its way comes twice, and no more
    assert daemon.docker("logs", "-n", "1", one).out == "number 600.\n"
    daemon.docker("rm", one)
    server.close()


def test_a_receiver_that_does_not_read_stops_no_container(engine: Engine, busybox: str, name: Names) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as stuck:
        one = name()
        flags = options(
            "syslog", syslog_address=f"tcp://127.0.0.1:{stuck.getsockname()[1]}", mode="non-blocking"
        )
        begun = time.monotonic()
        engine.docker(
            "run", "--name", one, *flags, busybox, "sh", "-c", f"{LINES} | head -c 30000000; echo end"
        )
        assert time.monotonic() - begun < 60
        assert engine.docker("logs", "-n", "1", one).out == "end\n"


def test_a_cache_that_is_switched_off_is_not_read(engine: Engine, busybox: str, name: Names) -> None:
    one, server = name(), Datagrams()
    flags = options("gelf", gelf_address=f"udp://127.0.0.1:{server.port}", cache_disabled="true")
    engine.docker("run", "--name", one, *flags, busybox, "echo", "x")
    assert "configured logging driver does not support reading" in engine.docker("logs", one, code=None).err
    server.close()


def children(pid: int, word: str) -> list[int]:
    """Processes that `pid` has started, whose command line has the word."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text() if pid else ""
    found = [int(one) for one in text.split()]
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(one) for one in (task / "children").read_text().split()]
    return sorted({one for one in found if word.encode() in Path(f"/proc/{one}/cmdline").read_bytes()})
