"""`images`, `image inspect`, `history`: filters, digests, ids and their beginnings, with both clients."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.cli import Cli
from support.engine import Daemon
from support.images import import_tar
from support.layers import entry, layer

TAR = layer(entry("file", data=b"x" * 1000))


@pytest.fixture(scope="module")
def own(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon with six images, made one after the other: a, b, c, and dangling ones."""
    daemon = make_daemon().start()
    daemon.api("DELETE", "/images/hello-world?force=1")
    import_tar(daemon.api, "first/a", TAR, "LABEL kind=one", "LABEL n=1")
    import_tar(daemon.api, "b", TAR, "LABEL kind=two")
    import_tar(daemon.api, "registry.example.com:5000/team/c", TAR)
    import_tar(daemon.api, "b", TAR, "LABEL kind=three")  # the one before has lost its name
    daemon.docker("tag", "b", "b:other")
    daemon.docker("create", "--name", "maker", "b", "x")
    daemon.docker("commit", "maker", "parent")
    daemon.docker("create", "--name", "child", "parent", "x")
    daemon.docker("commit", "-c", "ENV A=1", "child", "child")
    daemon.docker("rm", "child")
    daemon.docker("rmi", "parent")
    yield daemon
    daemon.end()


@pytest.fixture(params=["docker", "sampan"])
def client(own: Daemon, request: pytest.FixtureRequest) -> Cli:
    """One of the two command lines."""
    return own.cli(request.param)


def listed(client: Cli, *words: str) -> list[str]:
    return client("images", "--format", "{{.Repository}}:{{.Tag}}", *words).lines


ALL = [
    "child:latest",
    "b:latest",
    "b:other",
    "registry.example.com:5000/team/c:latest",
    "<none>:<none>",
    "first/a:latest",
]


def test_newest_first(client: Cli) -> None:
    assert listed(client) == ALL


def test_all_shows_what_others_were_made_from(client: Cli) -> None:
    assert listed(client, "-a") == [ALL[0], "<none>:<none>", *ALL[1:]]


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (["dangling=true"], [4]),
        (["dangling=false"], [0, 1, 2, 3, 5]),
        (["label=kind"], [0, 1, 2, 4, 5]),
        (["label=kind=one"], [5]),
        (["label=kind=one", "label=n"], [5]),
        (["label=kind=one", "label=n=2"], []),
        (["label!=kind"], [3]),
        (["before=b"], [3, 4, 5]),
        (["since=b"], [0]),
        (["since=first/a", "before=b"], [3, 4]),
        (["reference=b"], [1, 2]),
        (["reference=b:o*"], [2]),
        (["reference=*/*"], [5]),
        (["reference=*/*/c"], [3]),
        (["reference=first/*", "reference=child"], [0, 5]),
        (["reference=nothing"], []),
        (["until=1h"], []),
        (["until=2100-01-01"], [0, 1, 2, 3, 4, 5]),
        (["until=2000-01-01T00:00:00"], []),
    ],
)
def test_filters(client: Cli, filters: list[str], wanted: list[int]) -> None:
    words = [word for one in filters for word in ("--filter", one)]
    assert listed(client, *words) == [ALL[number] for number in wanted]


def test_a_pattern_as_argument(client: Cli) -> None:
    assert listed(client, "b") == ["b:latest", "b:other"]
    assert listed(client, "b:other") == ["b:other"]
    assert listed(client, "*:other") == ["b:other"]


@pytest.mark.parametrize(
    ("one", "message"),
    [
        ("nonsense=1", "invalid filter 'nonsense'"),
        ("dangling=maybe", "invalid filter 'dangling="),
        ("before=no-such-image", "No such image: no-such-image:latest"),
        ("until=nonsense", "nonsense"),
    ],
)
def test_filters_that_cannot_be(client: Cli, one: str, message: str) -> None:
    assert message in client("images", "--filter", one, code=1).err


def test_ids_and_their_beginnings(client: Cli, own: Daemon) -> None:
    whole = own.api.get("/images/b/json")["Id"]
    hexadecimal = whole.removeprefix("sha256:")
    for text in (whole, hexadecimal, hexadecimal[:12], f"sha256:{hexadecimal[:9]}"):
        assert client("image", "inspect", "-f", "{{.Id}}", text).out.strip() == whole
    ids = [one["Id"].removeprefix("sha256:") for one in own.api.get("/images/json?all=1")]
    shared = next((text for text in "0123456789abcdef" if sum(one.startswith(text) for one in ids) > 1), None)
    if shared is not None:
        assert client("image", "inspect", f"sha256:{shared}", code=1).err
    refused = client("image", "inspect", "f" * 64, code=1)
    assert "No such image" in refused.err
    assert refused.out.strip() == "[]"


def test_inspect_tells_where_layers_lie_and_what_the_image_is(own: Daemon) -> None:
    shown: dict[str, Any] = own.api.get("/v1.51/images/child/json?manifests=1")
    data = shown["GraphDriver"]["Data"]
    assert data["UpperDir"].startswith(str(own.data_root))
    assert "LowerDir" not in data  # it has but the layer of b
    assert shown["Descriptor"]["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    (manifest,) = shown["Manifests"]
    assert manifest["Descriptor"] == shown["Descriptor"]
    assert manifest["ImageData"]["Size"]["Unpacked"] == 1000
    assert shown["Metadata"]["LastTagTime"].startswith("20")
    both = '/v1.51/images/child/json?manifests=1&platform={"os":"linux","architecture":"amd64"}'
    assert own.api("GET", both).status == 400
    older = own.api.get("/v1.47/images/child/json?manifests=1")
    assert "Descriptor" not in older
    assert "Manifests" not in older
    summary = own.api.get('/v1.51/images/json?manifests=1&shared-size=1&filters={"reference":["child"]}')[0]
    assert summary["Manifests"][0]["ID"] == shown["Descriptor"]["digest"]
    assert summary["SharedSize"] == 1000


@pytest.mark.release28
def test_history_of_what_was_made_here(client: Cli, own: Daemon) -> None:
    ids = client("history", "-q", "--no-trunc", "child").lines
    assert ids[0] == own.api.get("/images/child/json")["Id"]
    assert ids[2] == own.api.get("/images/b/json")["Id"]
    assert len(ids) == 3
    assert json.loads(client("history", "--format", "json", "child").lines[2])["Comment"] == "Imported from -"


def test_many_names_are_listed_at_once(own: Daemon) -> None:
    """A list costs a few queries, not a few for each image: it must not take a second even here."""
    for number in range(60):
        own.api("POST", f"/images/b/tag?repo=many&tag={number}")
    own.api.get("/images/json")
    begun = time.monotonic()
    for _ in range(10):
        own.api.get("/images/json")
    assert time.monotonic() - begun < 2
    for number in range(60):
        own.api("DELETE", f"/images/many:{number}")
