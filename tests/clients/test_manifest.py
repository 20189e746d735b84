"""`manifest`: docker's client and ours say and keep the same, against one registry."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import docker_release
from support.engine import Engine
from support.own_registry import PASSWORD, USER, OwnRegistry


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRegistry]:
    with OwnRegistry(tmp_path_factory.mktemp("registry")) as served:
        yield served


@pytest.fixture(scope="module")
def images(engine: Engine, registry: OwnRegistry) -> list[str]:
    """Two names of one repository, with different images."""
    names = [f"{registry.host}/src/box:{tag}" for tag in ("one", "two")]
    engine.docker("tag", engine.busybox, names[0])
    made = engine.docker("create", engine.busybox, "true").out.strip()
    engine.docker("commit", "-c", "LABEL a=<&>", made, names[1])
    engine.docker("rm", made)
    for name in names:
        engine.docker("push", "-q", name)
        engine.docker("rmi", name)
    return names


def kept(directory: Path) -> dict[str, object]:
    """What lies in a configuration directory, by path, from JSON."""
    return {
        str(path.relative_to(directory)): json.loads(path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.mark.skipif(docker_release() < (28,), reason="held to the words of docker's client of release 28")
def test_both_clients_say_and_keep_the_same(
    engine: Engine, images: list[str], registry: OwnRegistry, tmp_path: Path
) -> None:
    one, two = images
    other = f"{registry.host}/dst/box"

    def steps(own: str) -> list[tuple[str, ...]]:
        """`own` is where the client may push to without meeting the other."""
        target = f"{registry.host}/{own}/list:1"
        return [
            ("inspect", one),
            ("inspect", "-v", one),
            ("inspect", f"{registry.host}/src/box:none"),
            ("inspect", "BAD"),
            ("create", target, one, two),
            ("create", target, one),
            ("create", "--amend", target, one),
            ("create", f"{other}:2", f"{registry.host}/src/box:none"),
            ("annotate", "--arch", "arm64", "--variant", "v8", target, two),
            ("annotate", "--os-version", "1", "--os-features", "a,b", target, two),
            ("annotate", "--os", "linux", target, f"{registry.host}/src/box:none"),
            ("inspect", target),
            ("inspect", "-v", target),
            ("inspect", target, two),
            ("inspect", "-v", target, two),
            ("inspect", target, f"{registry.host}/src/box:none"),
            ("push", f"{other}:none"),
            ("push", target),
            ("push", "--purge", target),
            ("inspect", target),
            ("inspect", "-v", target),
            ("create", f"{other}:3", target),
            ("create", f"{registry.host}/src/box:both", one, two),
            ("push", f"{registry.host}/src/box:both"),
            ("create", f"{other}:4", one),
            ("rm", f"{other}:none", f"{other}:4", f"{other}:gone"),
        ]

    said: dict[str, list[tuple[int, str, str]]] = {}
    for client in (engine.docker, engine.sampan):
        directory = tmp_path / client.name
        directory.mkdir()
        said[client.name] = []
        for words in steps(client.name):
            insecure = ["--insecure"] if words[0] in ("inspect", "create", "push") else []
            done = client(
                "manifest", words[0], *insecure, *words[1:], env={"DOCKER_CONFIG": str(directory)}, code=None
            )
            said[client.name].append(
                (done.code, done.out.replace(client.name, "CLIENT"), done.err.replace(client.name, "CLIENT"))
            )
    ours, theirs = said["sampan"], said["docker"]
    for words, one_said, other_said in zip(steps("CLIENT"), ours, theirs, strict=True):
        assert one_said == other_said, words
    assert kept(tmp_path / "sampan") == kept(tmp_path / "docker") != {}


def test_what_is_pushed_is_what_others_pull(
    engine: Engine, images: list[str], registry: OwnRegistry, tmp_path: Path
) -> None:
    target = f"{registry.host}/pulled/box:1"
    env = {"DOCKER_CONFIG": str(tmp_path)}
    engine.sampan("manifest", "create", target, *images, env=env)
    engine.sampan("manifest", "annotate", "--arch", "s390x", target, images[1], env=env)
    pushed = engine.sampan("manifest", "push", "--purge", target, env=env).lines
    assert pushed[-1].startswith("sha256:") and len(pushed) == 3
    assert engine.sampan("manifest", "rm", target, env=env, code=1).err == f"No such manifest: {target}\n"
    engine.docker("pull", "-q", target)
    assert engine.docker("run", "--rm", target, "echo", "well").out == "well\n"
    assert engine.docker("inspect", "-f", "{{.Architecture}}", target).out == "amd64\n"
    engine.docker("rmi", target)


def test_a_registry_that_wants_a_password(engine: Engine, tmp_path: Path) -> None:
    with OwnRegistry(tmp_path / "registry", auth=True) as guarded:
        env = {"DOCKER_CONFIG": str(tmp_path)}
        name = f"{guarded.host}/no/such:1"
        refused = engine.sampan("manifest", "inspect", name, env=env, code=1)
        assert refused.out == "" and len(refused.err.splitlines()) == 1 and "no such" not in refused.err
        secret = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {guarded.host: {"auth": secret}}}))
        assert (
            engine.sampan("manifest", "inspect", name, env=env, code=1).err == f"no such manifest: {name}\n"
        )


def test_broken_files_are_named(engine: Engine, tmp_path: Path) -> None:
    for content, why in (("{", "not a kept manifest"), ('{"Ref": 1}', "not a kept manifest")):
        place = tmp_path / "manifests" / "docker.io_library_x-1" / "docker.io_library_y-1"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)
        done = engine.sampan("manifest", "inspect", "x:1", env={"DOCKER_CONFIG": str(tmp_path)}, code=1)
        assert str(place) in done.err and why in done.err and len(done.err.splitlines()) == 1
