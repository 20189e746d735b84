"""Contexts in docker's own store: both programs see what either writes, and say the same of it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from sampan.cli.app import dispatch
from support.certificates import Authority

SOURCE = Path(__file__).parents[3] / "src"
Run = Callable[..., subprocess.CompletedProcess[str]]
SAMPAN = [sys.executable, "-m", "sampan.cli"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a client with a home of its own; the first word is the program."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "SAMPAN_"))}
    variables = {**kept, "HOME": str(tmp_path), "PYTHONPATH": str(SOURCE)}

    def runner(program: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*(SAMPAN if program == "sampan" else ["docker"]), *words],
            cwd=tmp_path,
            env={**variables, **more},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )

    return runner


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates") / "authority")


def docker_release() -> str:
    program = shutil.which("docker")
    if program is None:
        return ""
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout


needs_docker = pytest.mark.skipif(
    "version 28." not in docker_release(), reason="needs the program docker of release 28"
)


def neutral(text: str) -> str:
    """What a program says, without its own name and its own default socket."""
    return (
        text.replace("sampan", "docker")
        .replace("Sampan", "Docker")
        .replace("unix:///run/docker/docker.sock", "unix:///var/run/docker.sock")
    )


def squeezed(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


SCRIPT = (
    ("create", "first", "--description", "the first", "--docker", "host=tcp://192.0.2.1:2376,ca=ca.pem"),
    ("create", "first", "--docker", "host=unix:///x"),
    ("create", "default"),
    ("create", "a"),
    ("create", "bad/name"),
    ("create", "copy"),
    ("create", "socket", "--docker", "host=unix:///tmp/x,skip-tls-verify=true"),
    ("create", "second", "--from", "first", "--description", "two"),
    ("create", "bad", "--docker", "foo=bar"),
    ("create", "bad", "--docker", "host=nonsense"),
    ("create", "bad", "--docker", "host=unix:///x,ca=missing.pem"),
    ("create", "bad", "--docker", "skip-tls-verify=maybe"),
    ("create", "bad", "--docker", "foo"),
    ("create", "commas", "--docker", '"host=unix:///a,b"'),
    ("ls", "-q"),
    ("ls", "--format", "json"),
    ("ls", "--format", "table {{.Name}}\t{{.Current}}"),
    ("inspect", "first", "socket"),
    ("inspect", "-f", "{{.Endpoints.docker.Host}}", "first"),
    ("inspect", "-f", "{{.Foo}}", "first"),
    ("inspect", "-f", "json", "first"),
    ("inspect", "missing"),
    ("inspect",),
    ("use", "missing"),
    ("use", "first"),
    ("show",),
    ("ls", "--format", "{{.Name}} {{.Current}} {{.Description}} {{.DockerEndpoint}} {{.Error}}"),
    ("rm", "first"),
    ("rm", "missing"),
    ("rm", "default"),
    ("rm", "second", "commas"),
    ("rm", "-f", "first", "missing"),
    ("show",),
    ("update", "socket", "--description", "hey"),
    ("update", "socket", "--docker", "host=tcp://192.0.2.9:1"),
    ("update", "missing"),
    ("update", "default"),
    ("export", "socket"),
    ("export", "socket"),
    ("export", "missing"),
    ("import", "again", "socket.dockercontext"),
    ("import", "again", "socket.dockercontext"),
    ("import", "other", "nofile"),
    ("import", "default", "socket.dockercontext"),
    ("inspect", "again"),
    ("use", "again"),
    ("use", "default"),
    ("rm",),
    ("update",),
)


@needs_docker
def test_both_programs_say_and_write_the_same(
    run: Run, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ours(*words: str) -> tuple[int, str, str]:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = dispatch(words)
        return code, out.getvalue(), err.getvalue()

    def theirs(*words: str) -> tuple[int, str, str]:
        done = run("docker", *words)
        return done.returncode, done.stdout, done.stderr

    for variable in [name for name in os.environ if name.startswith(("DOCKER_", "SAMPAN_"))]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copy(authority.certificate, tmp_path / "ca.pem")
    written = {}
    said = {}
    for program, client in (("docker", theirs), ("sampan", ours)):
        said[program] = [
            (words, code, neutral(out), neutral(err))
            for words in SCRIPT
            for code, out, err in [client("context", *words)]
        ]
        code, out, err = client("context", "ls")
        said[program].append((("ls",), code, str(squeezed(neutral(out))), err))
        folder = tmp_path / ".docker"
        written[program] = {
            str(path.relative_to(folder)): (neutral(path.read_text()), path.stat().st_mode)
            for path in folder.rglob("*")
            if path.is_file()
        }
        shutil.rmtree(folder)
        (tmp_path / "socket.dockercontext").unlink()
    for right, found in zip(said["docker"], said["sampan"], strict=True):
        assert found == right
    assert written["sampan"] == written["docker"]


@needs_docker
def test_each_uses_what_the_other_made(run: Run, tmp_path: Path) -> None:
    assert run("sampan", "context", "create", "mine", "--docker", "host=unix:///tmp/mine").returncode == 0
    assert run("docker", "context", "use", "mine").returncode == 0
    assert run("sampan", "context", "show").stdout == "mine\n"
    assert "unix:///tmp/mine" in run("sampan", "ps").stderr
    assert "unix:///tmp/mine" in run("docker", "ps").stderr
    exported = run("sampan", "context", "export", "mine", "mine.tar")
    assert exported.returncode == 0, exported.stderr
    assert run("docker", "context", "import", "theirs", "mine.tar").returncode == 0
    found = json.loads(run("sampan", "context", "inspect", "theirs").stdout)
    assert found[0]["Endpoints"]["docker"]["Host"] == "unix:///tmp/mine"


def test_which_daemon_is_asked(run: Run) -> None:
    for name in ("one", "two"):
        run("sampan", "context", "create", name, "--docker", f"host=unix:///nowhere/{name}")

    def asked(*words: str, **variables: str) -> str:
        done = run("sampan", *words, "ps", **variables)
        assert done.returncode == 1
        return done.stderr.split(" at ")[-1].split(". Is")[0]

    assert asked("-c", "one") == "unix:///nowhere/one"
    assert asked(DOCKER_CONTEXT="two") == "unix:///nowhere/two"
    run("sampan", "context", "use", "two")
    assert asked() == "unix:///nowhere/two"
    assert asked(DOCKER_CONTEXT="one") == "unix:///nowhere/one"
    assert asked(DOCKER_HOST="unix:///nowhere/env", DOCKER_CONTEXT="one") == "unix:///nowhere/env"
    assert asked(SAMPAN_HOST="unix:///nowhere/ours", DOCKER_HOST="unix:///x") == "unix:///nowhere/ours"
    assert asked("-c", "one", DOCKER_HOST="unix:///nowhere/env") == "unix:///nowhere/one"
    assert asked("-H", "unix:///nowhere/flag") == "unix:///nowhere/flag"
    both = run("sampan", "-H", "unix:///x", "-c", "one", "ps")
    assert both.stderr == "conflicting options: cannot specify both --host and --context\n"
    missing = run("sampan", "-c", "none", "ps")
    assert missing.returncode == 1
    assert missing.stderr.startswith("Failed to initialize: unable to resolve docker endpoint: context")
    version = run("sampan", "version", "--format", "{{.Client.Context}}")
    assert version.stdout == "two\n"


def test_tls_files_are_kept_for_the_owner_and_go_along(
    run: Run, tmp_path: Path, authority: Authority
) -> None:
    made = authority.issue("client", "extendedKeyUsage=clientAuth")
    words = f"host=tcp://192.0.2.1:2376,ca={made}/ca.pem,cert={made}/cert.pem,key={made}/key.pem"
    done = run("sampan", "context", "create", "secure", "--docker", words)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / ".docker/contexts/tls").rglob("*.pem"))
    assert [path.name for path in files] == ["ca.pem", "cert.pem", "key.pem"]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    run("sampan", "context", "export", "secure", "secure.tar")
    assert (tmp_path / "secure.tar").stat().st_mode & 0o777 == 0o600
    run("sampan", "context", "import", "copy", "secure.tar")
    copied = json.loads(run("sampan", "context", "inspect", "copy").stdout)[0]
    assert copied["TLSMaterial"] == {"docker": ["ca.pem", "cert.pem", "key.pem"]}
    assert (Path(copied["Storage"]["TLSPath"]) / "docker" / "key.pem").read_bytes() == (
        made / "key.pem"
    ).read_bytes()
    run("sampan", "context", "update", "copy", "--docker", "host=tcp://192.0.2.2:2375")
    assert json.loads(run("sampan", "context", "inspect", "copy").stdout)[0]["TLSMaterial"] == {}


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("path", ["../evil", "tls/../../evil/x", "tls/docker/..", "other"])
def test_an_archive_writes_nowhere_else(run: Run, tmp_path: Path, kind: str, path: str) -> None:
    made = io.BytesIO()
    meta = json.dumps({"Name": "x", "Metadata": {}, "Endpoints": {"docker": {"Host": "unix:///x"}}}).encode()
    if kind == "tar":
        with tarfile.open(fileobj=made, mode="w") as archive:
            for name, data in (("meta.json", meta), (path, b"evil")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    else:
        with zipfile.ZipFile(made, "w") as packed:
            packed.writestr("meta.json", meta)
            packed.writestr(path, b"evil")
    (tmp_path / "evil.archive").write_bytes(made.getvalue())
    before = set(tmp_path.rglob("*"))
    done = run("sampan", "context", "import", "bad", "evil.archive")
    assert done.returncode == 1 and ("unexpected" in done.stderr)
    assert set(tmp_path.rglob("*")) == before


def test_a_zip_is_taken(run: Run, tmp_path: Path) -> None:
    meta = json.dumps({"Name": "x", "Metadata": {}, "Endpoints": {"docker": {"Host": "unix:///zip"}}})
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as packed:
        packed.writestr("meta.json", meta)
        packed.writestr("tls/docker/ca.pem", "ca")
    assert run("sampan", "context", "import", "zipped", "c.zip").returncode == 0
    found = run("sampan", "context", "inspect", "-f", "{{.Endpoints.docker.Host}} {{.TLSMaterial}}", "zipped")
    assert found.stdout == "unix:///zip map[docker:[ca.pem]]\n"
