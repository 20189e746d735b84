"""login, logout, search and what `info` and `/distribution` tell of registries, against real ones."""

import base64
import contextlib
import http.server
import json
import os
import signal
import socket
import threading

import pytest

from sampan.daemon.service import WORKERS
from support.api import UnixConnection
from support.machine import eventually
from support.registry import PASSWORD, USER, Registry, free_port


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with Registry(tmp_path_factory.mktemp("guarded"), auth=True, tls=True) as registry:
        yield registry


@pytest.fixture
def config(tmp_path):
    """A configuration directory of the test's own: (path, environment)."""
    directory = tmp_path / "config"
    return directory, {"DOCKER_CONFIG": str(directory)}


def read(directory):
    return json.loads((directory / "config.json").read_text())


@pytest.mark.release28
def test_login_and_logout(cli, guarded, config):
    directory, env = config
    done = cli(
        "login", "-u", USER, "--password-stdin", guarded.host, stdin=PASSWORD.encode() + b"\n", env=env
    )
    assert done.out == "Login Succeeded\n"
    assert f"unencrypted in '{directory}/config.json'" in done.err
    assert (directory / "config.json").stat().st_mode & 0o777 == 0o600
    entry = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert read(directory) == {"auths": {guarded.host: {"auth": entry}}}
    again = cli("login", guarded.host, env=env)
    assert again.out == "Login Succeeded\n"
    assert f"Authenticating with existing credentials... [Username: {USER}]" in again.err
    done = cli("logout", guarded.host, env=env)
    assert done.out == f"Removing login credentials for {guarded.host}\n"
    assert read(directory) == {"auths": {}}


def test_wrong_password(cli, guarded, config):
    directory, env = config
    done = cli("login", "-u", USER, "-p", "wrong", f"https://{guarded.host}/v2/", env=env, code=1)
    assert done.err.startswith("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")
    assert "Error response from daemon: " in done.err
    assert "401 Unauthorized" in done.err
    assert done.out == ""
    assert not directory.exists() or not (directory / "config.json").exists()


@pytest.mark.release28
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["-u", "a", "-p", "b", "--password-stdin"],
            "conflicting options: cannot specify both --password and --password-stdin",
        ),
        (["--password-stdin"], "the --password-stdin option requires --username to be set"),
        (["-u", "a"], "Error: Cannot perform an interactive login from a non TTY device"),
    ],
)
def test_refusals(cli, config, words, said):
    assert said in cli("login", *words, env=config[1], code=1).err


def test_nobody_there(cli, config):
    host = f"127.0.0.1:{free_port()}"
    done = cli("login", "-u", "a", "-p", "b", host, env=config[1], code=1)
    assert f'Get "http://{host}/v2/": ' in done.err
    assert "connection refused" in done.err


def test_other_members_of_the_file_stay(cli, guarded, config):
    directory, env = config
    directory.mkdir()
    (directory / "config.json").write_text('{"psFormat": "x", "auths": {"other": {"auth": "YTpi"}}}')
    (directory / "config.json").chmod(0o640)
    cli("login", "-u", USER, "-p", PASSWORD, guarded.host, env=env)
    found = read(directory)
    assert found["psFormat"] == "x"
    assert set(found["auths"]) == {"other", guarded.host}
    cli("logout", guarded.host, env=env)
    assert read(directory) == {"psFormat": "x", "auths": {"other": {"auth": "YTpi"}}}


HELPER = """#!/bin/sh
# A credential helper that keeps everything in one directory, a file for each server.
cd "$(dirname "$0")/kept" || exit 1
case $1 in
store) json=$(cat); name=$(printf %s "$json" | sed 's/.*"ServerURL":"\\([^"]*\\)".*/\\1/' | tr '/:' '__')
       printf %s "$json" > "$name" ;;
get) name=$(tr '/:' '__')
     if [ -f "$name" ]; then cat "$name"; else echo "credentials not found in native keychain"; exit 1; fi ;;
erase) name=$(tr '/:' '__'); rm -f "$name" ;;
esac
"""


@pytest.mark.release28
@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_credential_helper(cli, guarded, config, tmp_path, key):
    directory, env = config
    programs = tmp_path / "bin"
    (programs / "kept").mkdir(parents=True)
    helper = programs / "docker-credential-chest"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    env = {**env, "PATH": f"{programs}:{os.environ['PATH']}"}
    directory.mkdir()
    value = "chest" if key == "credsStore" else {guarded.host: "chest"}
    (directory / "config.json").write_text(json.dumps({key: value}))
    done = cli("login", "-u", USER, "-p", PASSWORD, guarded.host, env=env)
    assert "unencrypted" not in done.err
    assert read(directory)["auths"] == {guarded.host: {}}
    (kept,) = (programs / "kept").iterdir()
    assert json.loads(kept.read_text())["Secret"] == PASSWORD
    assert cli("login", guarded.host, env=env).out == "Login Succeeded\n"
    cli("logout", guarded.host, env=env)
    assert not list((programs / "kept").iterdir())


@pytest.mark.release28
def test_helper_that_is_not_there(cli, guarded, config):
    directory, env = config
    directory.mkdir()
    (directory / "config.json").write_text('{"credsStore": "nowhere"}')
    done = cli("login", "-u", USER, "-p", PASSWORD, guarded.host, env=env, code=1)
    assert 'exec: "docker-credential-nowhere": executable file not found in $PATH' in done.err


def test_distribution(engine, guarded):
    digest = guarded.fill("look", "v1", architecture="arm64")
    proof = base64.urlsafe_b64encode(json.dumps({"username": USER, "password": PASSWORD}).encode()).decode()
    target = f"/distribution/{guarded.host}/look:v1/json"
    answer = engine.api("GET", target, headers={"X-Registry-Auth": proof})
    assert answer.status == 200, answer.body
    assert answer.json()["Descriptor"]["digest"] == digest
    assert answer.json()["Platforms"] == [{"architecture": "arm64", "os": "linux"}]
    missing = engine.api("GET", target.replace("v1", "v2"), headers={"X-Registry-Auth": proof})
    assert (missing.status, missing.message) == (404, "manifest unknown: manifest unknown")
    assert engine.api("GET", "/distribution/UPPER/json").status == 400


class Search(http.server.BaseHTTPRequestHandler):
    """A registry's v1 search."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self):
        self.asked.append(self.path)
        results = [
            {"name": "few", "description": "two\nlines", "star_count": 3, "is_official": False},
            {"name": "many", "description": "d" * 60, "star_count": 40, "is_official": True},
        ]
        body = json.dumps({"results": results}).encode()
        found = self.path.startswith("/v1/search?")
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body) if found else 0))
        self.end_headers()
        if found:
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def searchable():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Search)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.release28
def test_search(cli, searchable):
    done = cli("search", f"{searchable}/boat")
    assert [line.split() for line in done.lines] == [
        ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"],
        ["few", "two", "lines", "3"],
        ["many", "d" * 44 + "…", "40", "[OK]"],
    ]
    assert cli("search", "--no-trunc", "--format", "{{.Description}}", f"{searchable}/x").lines[1] == "d" * 60
    assert cli("search", "-f", "stars=5", "--format", "{{.Name}}", f"{searchable}/x").lines == ["many"]
    assert cli("search", "-f", "is-official=false", "--format", "{{.Name}}", f"{searchable}/x").lines == [
        "few"
    ]
    cli("search", "--limit", "1", f"{searchable}/some/boat")
    assert Search.asked[-1] == "/v1/search?q=some%2Fboat&n=1"


def test_search_refusals(cli, engine, searchable, guarded):
    assert "outside the range of [1, 100]" in cli("search", "--limit", "101", f"{searchable}/x", code=1).err
    assert "invalid filter 'bad'" in cli("search", "-f", "bad=1", f"{searchable}/x", code=1).err.lower()
    assert "Unexpected status code 404" in cli("search", f"{guarded.host}/x", code=1).err


def test_info(make_daemon):
    daemon = make_daemon(
        *("--insecure-registry", "10.0.0.0/8", "--insecure-registry", "old.example:5000"),
        *("--registry-mirror", "https://mirror.example", "--http-proxy", "http://me:pw@proxy.example"),
    ).start()
    try:
        shown = daemon.api.get("/info")
        assert shown["RegistryConfig"] == {
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", "10.0.0.0/8"],
            "IndexConfigs": {
                "docker.io": {
                    "Name": "docker.io",
                    "Mirrors": ["https://mirror.example/"],
                    "Secure": True,
                    "Official": True,
                },
                "old.example:5000": {
                    "Name": "old.example:5000",
                    "Mirrors": [],
                    "Secure": False,
                    "Official": False,
                },
            },
            "Mirrors": ["https://mirror.example/"],
        }
        assert shown["HttpProxy"] == "http://xxxxx:xxxxx@proxy.example"
        assert " Insecure Registries:\n" in daemon.sampan("info").out
    finally:
        daemon.end()


def test_reload(make_daemon):
    """SIGHUP takes mirrors and insecure registries anew, and keeps what it had when they cannot be."""
    daemon = make_daemon(config='{"registry-mirrors": ["https://one.example"]}').start()
    try:

        def reloaded(text, mirrors):
            (daemon.base / "daemon.json").write_text(text)
            os.kill(daemon.pid, signal.SIGHUP)
            eventually(lambda: daemon.api.get("/info")["RegistryConfig"]["Mirrors"] == mirrors)

        reloaded('{"registry-mirrors": ["https://two.example"]}', ["https://two.example/"])
        reloaded('{"insecure-registries": ["192.0.2.0/24"]}', [])
        assert "192.0.2.0/24" in daemon.api.get("/info")["RegistryConfig"]["InsecureRegistryCIDRs"]
        (daemon.base / "daemon.json").write_text('{"registry-mirrors": ["ftp://x"]}')
        os.kill(daemon.pid, signal.SIGHUP)
        eventually(lambda: "the configuration is kept as it was: invalid mirror" in daemon.log_text())
        assert "192.0.2.0/24" in daemon.api.get("/info")["RegistryConfig"]["InsecureRegistryCIDRs"]
    finally:
        daemon.end()


def test_who_waits_for_a_registry_keeps_nobody_waiting(engine):
    """Each has a thread of its own, and not one of those that all other work shares."""
    with socket.create_server(("127.0.0.1", 0)) as silent, contextlib.ExitStack() as held:
        silent.settimeout(30)
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        login = json.dumps({"username": USER, "password": PASSWORD, "serveraddress": host})
        asked = (
            ("POST", "/auth", login),
            ("GET", f"/distribution/{host}/x/json", None),
            ("GET", f"/images/search?term={host}/x", None),
        )
        for method, target, body in (asked * WORKERS)[: WORKERS + 2]:
            connection = UnixConnection(engine.socket)
            held.callback(connection.close)
            connection.request(method, target, body=body, headers={"Content-Type": "application/json"})
            held.enter_context(silent.accept()[0])
        assert engine.api("GET", "/images/json", timeout=30).status == 200
