"""push, seen by the registry and by skopeo; with docker's client and ours."""

import hashlib
import json
import os
import subprocess
import tarfile
import time

import pytest

from support import needs
from support.images import import_tar
from support.registry import PASSWORD, USER, Registry, layer_tar

pytestmark = needs.program("skopeo")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with Registry(tmp_path_factory.mktemp("plain")) as registry:
        yield registry


@pytest.fixture
def image(engine):
    """Makes an image of random content, so that no registry has it; its names are removed afterwards."""
    made = []

    def make(name, size=200_000, **files):
        content = {"random": os.urandom(size), **files}
        import_tar(engine.api, name.rpartition(":")[0], layer_tar(content))
        if not name.endswith(":latest"):
            engine.docker("tag", f"{name.rpartition(':')[0]}:latest", name)
        made.append(name)
        return name

    yield make
    for name in made:
        image_id = engine.docker("image", "inspect", "-f", "{{.Id}}", name, code=None).out.strip()
        engine.docker("rmi", "-f", image_id, code=None)


def skopeo(*arguments):
    done = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_push_and_push_again(cli, engine, plain, image):
    name = image(f"{plain.host}/first-{cli.name}:latest")
    repository = f"first-{cli.name}"
    done = cli("push", name)
    short = engine.api.get(f"/images/{name}/json")["RootFS"]["Layers"][0][7:19]
    manifest, digest = plain.manifest(repository, "latest")
    size = len(plain("GET", f"{repository}/manifests/{digest}", headers={"Accept": manifest["mediaType"]})[2])
    assert done.lines == [
        f"The push refers to repository [{plain.host}/{repository}]",
        f"{short}: Preparing",
        f"{short}: Pushed",
        f"latest: digest: {digest} size: {size}",
    ]
    assert engine.api.get(f"/images/{name}/json")["RepoDigests"] == [f"{plain.host}/{repository}@{digest}"]
    again = cli("push", f"{plain.host}/{repository}")
    assert again.lines[0] == "Using default tag: latest"
    assert f"{short}: Layer already exists" in again.lines
    assert plain.manifest(repository, "latest")[1] == digest
    uploads = [line for line in plain.requests() if f"/{repository}/blobs/uploads/ 202" in line]
    assert len(uploads) == 2  # layer and config, once


def test_what_skopeo_gets(engine, plain, image, tmp_path):
    files = {f"file{number}": os.urandom(5000) * 3 for number in range(30)}
    name = image(f"{plain.host}/whole:latest", **files)
    engine.docker("push", "-q", name)
    shown = json.loads(skopeo("inspect", "--tls-verify=false", f"docker://{name}"))
    assert shown["Architecture"] == engine.api.get(f"/images/{name}/json")["Architecture"]
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/out")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    (layer,) = manifest["layers"]
    assert layer["mediaType"].endswith("tar+gzip")
    with tarfile.open(tmp_path / "out" / layer["digest"][7:], "r:gz") as archive:
        found = {member.name: archive.extractfile(member).read() for member in archive}
    assert {key: found[key] for key in files} == files
    plain_bytes = subprocess.run(
        ["gzip", "-dc"], input=(tmp_path / "out" / layer["digest"][7:]).read_bytes(), capture_output=True
    ).stdout
    config = json.loads((tmp_path / "out" / manifest["config"]["digest"][7:]).read_text())
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(plain_bytes).hexdigest()]


def test_mount_from_another_repository(cli, engine, plain, image):
    name = image(f"{plain.host}/origin-{cli.name}:latest")
    cli("push", name)
    other = f"{plain.host}/some/other-{cli.name}"
    cli("tag", name, other)
    done = cli("push", f"{other}:latest")
    assert any(line.endswith(f": Mounted from origin-{cli.name}") for line in done.lines)
    digests = engine.api.get(f"/images/{name}/json")["RepoDigests"]
    assert len(digests) == 2
    assert len({digest.partition("@")[2] for digest in digests}) == 1


def test_the_mount_source_is_gone(engine, plain, image):
    """What is remembered of a repository is a hint: its blobs may have been deleted since."""
    name = image(f"{plain.host}/gone:latest")
    engine.docker("push", name)
    manifest, _ = plain.manifest("gone", "latest")
    assert plain("DELETE", f"gone/blobs/{manifest['layers'][0]['digest']}")[0] == 202
    other = f"{plain.host}/after-gone:latest"
    engine.docker("tag", name, other)
    done = engine.docker("push", other)
    assert any(line.endswith(": Pushed") for line in done.lines)
    assert plain.has_blob("after-gone", manifest["layers"][0]["digest"])


def test_all_tags(cli, plain, image):
    repository = f"{plain.host}/tags-{cli.name}"
    image(f"{repository}:one")
    cli("tag", f"{repository}:one", f"{repository}:two")
    done = cli("push", "--all-tags", repository)
    assert [line.split(":")[0] for line in done.lines if ": digest: " in line] == ["latest", "one", "two"]
    tags = json.loads(plain("GET", f"tags-{cli.name}/tags/list")[2])["tags"]
    assert sorted(tags) == ["latest", "one", "two"]


def test_quiet(cli, plain, image):
    name = image(f"{plain.host}/quiet-{cli.name}:latest")
    assert cli("push", "-q", name).out == f"{name}\n"


@pytest.mark.release28
def test_refusals(cli, plain, image):
    name = image(f"{plain.host}/refuse-{cli.name}:latest")
    repository = name.rpartition(":")[0]
    missing = cli("push", f"{plain.host}/no-such-thing", code=1)
    assert f"An image does not exist locally with the tag: {plain.host}/no-such-thing" in missing.err
    assert f"tag does not exist: {repository}:v9" in cli("push", f"{repository}:v9", code=1).err
    assert "tag can't be used with --all-tags/-a" in cli("push", "-a", name, code=1).err
    other = cli("push", "--platform", "linux/s390x", name, code=1).err
    assert "does not match the specified platform" in other
    assert "invalid reference format" in cli("push", "Upper/Case:x:y", code=1).err


def test_registry_that_is_down(cli, engine, tmp_path, image):
    registry = Registry(tmp_path)
    name = image(f"{registry.host}/down:latest")
    failed = cli("push", name, code=1)
    assert "connection refused" in failed.err


def test_credentials(cli, engine, tmp_path, image):
    env = {"DOCKER_CONFIG": str(tmp_path / "config")}
    with Registry(tmp_path / "registry", auth=True, tls=True) as registry:
        name = image(f"{registry.host}/mine:latest")
        assert "no basic auth credentials" in cli("push", name, env=env, code=1).err
        cli("login", "-u", USER, "--password-stdin", registry.host, stdin=PASSWORD.encode(), env=env)
        assert "latest: digest: sha256:" in cli("push", name, env=env).out
        assert registry.manifest("mine", "latest")


def test_zstd(engine, plain, image, tmp_path):
    name = image(f"{plain.host}/zstd:latest", text=b"ahoy " * 10_000)
    engine.sampan("push", "--compression", "zstd", name)
    manifest, _ = plain.manifest("zstd", "latest")
    assert manifest["layers"][0]["mediaType"] == "application/vnd.oci.image.layer.v1.tar+zstd"
    again = engine.sampan("push", "--compression", "zstd", name)
    assert any(line.endswith(": Layer already exists") for line in again.lines)
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/out")
    refused = engine.sampan("push", "--compression", "lzma", name, code=1)
    assert "compression 'lzma' is none of gzip, zstd" in refused.err


def test_an_archive_that_was_compressed_goes_as_it_is(engine, plain, tmp_path):
    """Loaded with gzip layers and a manifest of its own: the very bytes arrive."""
    digest = plain.fill("source", "v1", [{"a": os.urandom(1000)}, {"b": b"b"}])
    archive = tmp_path / "image.tar"
    skopeo(
        "copy", "--src-tls-verify=false", f"docker://{plain.host}/source:v1", f"oci-archive:{archive}:x:v1"
    )
    loaded = engine.docker("load", "-i", str(archive)).out.partition(": ")[2].strip()
    engine.docker("tag", loaded, f"{plain.host}/copy:v1")
    done = engine.docker("push", f"{plain.host}/copy:v1")
    assert f"v1: digest: {digest} " in done.out
    assert plain.manifest("copy", "v1")[1] == digest
    engine.docker("rmi", "-f", loaded)


def test_many_layers_at_once(engine, plain, tmp_path):
    """More layers than uploads at a time, two of them alike; the order of layers stays."""
    layers = [{f"file{number}": os.urandom(30_000)} for number in range(9)]
    digest = plain.fill("layers", "v1", [*layers, layers[0]])
    archive = tmp_path / "image.tar"
    skopeo(
        *("copy", "--src-tls-verify=false", f"docker://{plain.host}/layers:v1"),
        f"docker-archive:{archive}:{plain.host}/many:v1",
    )
    engine.docker("load", "-i", str(archive))
    done = engine.docker("push", f"{plain.host}/many:v1")
    assert sum(line.endswith(": Waiting") for line in done.lines) == 4
    assert sum(line.endswith(": Pushed") for line in done.lines) == 9
    was, now = (plain.manifest(name, "v1")[0] for name in ("layers", "many"))
    sizes = [len(now["layers"]), len({layer["digest"] for layer in now["layers"]})]
    assert sizes == [10, 9]
    configs = [
        json.loads(plain("GET", f"{name}/blobs/{document['config']['digest']}")[2])["rootfs"]["diff_ids"]
        for name, document in (("layers", was), ("many", now))
    ]
    assert configs[0] == configs[1]
    assert digest
    engine.docker("rmi", f"{plain.host}/many:v1")


def test_event(engine, plain, image):
    before = time.time()
    name = image(f"{plain.host}/event:latest")
    engine.docker("push", name)
    seen = engine.api("GET", f"/events?since={before:.6f}&until={time.time():.6f}")
    events = [json.loads(line) for line in seen.body.splitlines()]
    (event,) = [one for one in events if one["Action"] == "push"]
    assert event["Actor"]["ID"] == name
    assert event["Actor"]["Attributes"]["name"] == name.rpartition(":")[0]


def test_bad_credentials_header(engine):
    answer = engine.api("POST", "/images/x/push?tag=latest", headers={"X-Registry-Auth": "%%%"})
    assert (answer.status, answer.message) == (
        400,
        "invalid X-Registry-Auth header: it is not base64 of JSON",
    )


def test_client_that_leaves(engine, plain, image):
    """The daemon does not go on pushing for nobody."""
    name = image(f"{plain.host}/left:latest", size=60_000_000)
    with engine.docker.start("push", name) as process:
        for line in process.stdout:
            if b"Preparing" in line:
                break
        process.kill()
    time.sleep(2)
    assert plain("GET", "left/tags/list")[0] == 404 or "latest" not in str(plain("GET", "left/tags/list")[2])


def test_a_pulled_image_goes_back_as_it_came(cli, engine, plain):
    """To the same registry it is mounted, to another one uploaded; its digest is the one that was pulled."""
    source = f"from/origin-{cli.name}"
    digest = plain.fill(source, "v1", [{"a": os.urandom(1000)}, {"b": os.urandom(1000)}])
    cli("pull", f"{plain.host}/{source}:v1")
    cli("tag", f"{plain.host}/{source}:v1", f"{plain.host}/back-{cli.name}:v2")
    done = cli("push", f"{plain.host}/back-{cli.name}:v2")
    assert sum(line.endswith(f": Mounted from {source}") for line in done.lines) == 2
    assert f"v2: digest: {digest} " in done.out
    assert plain.manifest(f"back-{cli.name}", "v2")[1] == digest
    names = engine.api.get(f"/images/{plain.host}/{source}:v1/json")["RepoDigests"]
    assert sorted(names) == sorted(f"{plain.host}/{name}@{digest}" for name in (source, f"back-{cli.name}"))
    cli("rmi", f"{plain.host}/{source}:v1", f"{plain.host}/back-{cli.name}:v2")


def test_plain_layers_that_were_pulled_stay_plain(engine, plain):
    """A registry may hold layers that are not compressed; pushing them on must not change the digest."""
    data = layer_tar({"plain": os.urandom(1000)})
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [plain.put_blob("flat", data)]},
        }
    ).encode()
    kind = "application/vnd.oci.image"
    digest = plain.put_manifest(
        "flat",
        "v1",
        {
            "schemaVersion": 2,
            "mediaType": f"{kind}.manifest.v1+json",
            "config": {
                "mediaType": f"{kind}.config.v1+json",
                "digest": plain.put_blob("flat", config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": f"{kind}.layer.v1.tar",
                    "digest": plain.put_blob("flat", data),
                    "size": len(data),
                }
            ],
        },
    )
    engine.docker("pull", f"{plain.host}/flat:v1")
    engine.docker("tag", f"{plain.host}/flat:v1", f"{plain.host}/flatter:v1")
    assert f"v1: digest: {digest} " in engine.docker("push", f"{plain.host}/flatter:v1").out
    engine.docker("rmi", f"{plain.host}/flat:v1", f"{plain.host}/flatter:v1")
