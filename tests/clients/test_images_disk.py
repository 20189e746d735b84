"""`system df`, `system prune` and the prunes of each kind, in docker's words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

import pytest

from support.cli import Cli
from support.engine import Daemon
from support.images import import_busybox

Names = Callable[[], str]


@pytest.fixture(scope="module")
def own(make_daemon: Callable[..., Daemon]) -> Iterator[Daemon]:
    """A daemon that nobody else prunes."""
    daemon = make_daemon().start()
    yield daemon
    daemon.end()


@pytest.fixture
def both(own: Daemon, request: pytest.FixtureRequest) -> Iterator[Cli]:
    """One of the two command lines at an engine with nothing but busybox."""
    client = own.cli(request.param)
    for container in own.api.containers():
        own.api.remove(container["Id"])
    own.api("POST", '/images/prune?filters={"dangling":["false"]}')
    own.api("POST", '/volumes/prune?filters={"all":["true"]}')
    import_busybox(own.api)
    yield client
    for container in own.api.containers():
        own.api.remove(container["Id"])


pair = pytest.mark.parametrize("both", ["docker", "sampan"], indirect=True)


@pytest.mark.release28
@pair
def test_df(both: Cli, own: Daemon) -> None:
    shown = both("system", "df").out
    size = re.search(r"([\d.]+[kM]B) ", shown)
    assert size is not None
    assert shown.splitlines() == [
        "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE",
        f"Images          1         0         {size[1]:<10}{size[1]} (100%)",
        "Containers      0         0         0B        0B",
        "Local Volumes   0         0         0B        0B",
        "Build Cache     0         0         0B        0B",
    ]
    both(
        "run",
        "--name",
        "writer",
        "-v",
        "data:/data",
        "busybox",
        "sh",
        "-c",
        "printf 123 >/x; printf 12345 >/data/y",
    )
    both("run", "-d", "--name", "runner", "busybox", "sleep", "1000")
    both("commit", "writer", "written")
    rows = {row["Type"]: row for row in map(json.loads, both("system", "df", "--format", "json").lines)}
    assert (rows["Images"]["TotalCount"], rows["Images"]["Active"]) == ("2", "1")
    assert rows["Images"]["Reclaimable"] == f"{size[1]} (100%)"
    assert (rows["Containers"]["TotalCount"], rows["Containers"]["Active"]) == ("2", "1")
    assert rows["Containers"]["Reclaimable"] == "3B (100%)"
    assert rows["Local Volumes"]["Size"] == "5B"
    assert rows["Local Volumes"]["Active"] == "1"
    verbose = both("system", "df", "-v").out
    for title in (
        "Images space usage:\n\nREPOSITORY   TAG       IMAGE ID       CREATED",
        "\n\nContainers space usage:\n\nCONTAINER ID   IMAGE     COMMAND",
        "\n\nLocal Volumes space usage:\n\nVOLUME NAME   LINKS     SIZE\ndata          1         5B\n\n",
        "\nBuild cache usage: 0B\n\n",
        "CACHE ID   CACHE TYPE   SIZE      CREATED   LAST USED   USAGE     SHARED\n",
    ):
        assert title in verbose
    shown = json.loads(both("system", "df", "-v", "--format", "json").out)
    named = {one["Repository"]: one for one in shown["Images"]}
    assert named["written"]["SharedSize"] == size[1]
    assert named["written"]["UniqueSize"] == "3B"
    assert named["busybox"]["Containers"] == "2"
    assert [one["Names"] for one in shown["Containers"]] == ["runner", "writer"]
    assert shown["BuildCache"] == []


def test_df_of_some_types(own: Daemon) -> None:
    only = own.api.get("/v1.51/system/df?type=image&type=volume")
    assert only["Containers"] is None
    assert only["BuildCache"] is None
    assert isinstance(only["Images"], list)
    assert isinstance(only["Volumes"], list)
    assert own.api("GET", "/v1.51/system/df?type=bad").message == "unknown object type: bad"
    assert own.api.get("/v1.41/system/df")["BuilderSize"] == 0


@pair
def test_df_of_a_container_whose_image_is_gone(both: Cli, own: Daemon) -> None:
    both("create", "--name", "orphan", "busybox")
    both("rmi", "-f", "busybox")
    assert "orphan" in both("system", "df", "-v").out
    assert "(virtual " in both("ps", "-as").out


@pytest.mark.release28
@pair
def test_system_prune(both: Cli, own: Daemon) -> None:
    both("create", "--name", "stopped", "busybox")
    both("create", "--name", "labelled", "--label", "keep", "busybox")
    both("run", "-d", "--name", "running", "busybox", "sleep", "1000")
    both("run", "--name", "written", "busybox", "touch", "/x")
    dangling = both("commit", "written").out.strip()
    both("volume", "create", "named")
    both("volume", "create")
    asked = both("system", "prune", "--filter", "label!=keep", stdin=b"n\n", code=None)
    assert asked.out == (
        "WARNING! This will remove:\n"
        "  - all stopped containers\n"
        "  - all networks not used by at least one container\n"
        "  - all dangling images\n"
        "  - unused build cache\n"
        "\n"
        "  Items to be pruned will be filtered with:\n"
        "  - label!=keep\n"
        "\n"
        "Are you sure you want to continue? [y/N] "
    )
    assert len(own.api.containers()) == 4
    done = both("system", "prune", "--filter", "label!=keep", stdin=b"y\n").out
    assert "Deleted Containers:\n" in done
    assert f"Deleted Images:\ndeleted: {dangling}\n" in done
    assert done.endswith("\nTotal reclaimed space: 0B\n")
    assert {one["Names"][0] for one in own.api.containers()} == {"/labelled", "/running"}
    assert len(own.api.get("/volumes")["Volumes"]) == 2
    both("rm", "labelled")
    done = both("system", "prune", "-af", "--volumes").out
    assert "Deleted Volumes:\n" in done
    assert [one["Name"] for one in own.api.get("/volumes")["Volumes"]] == ["named"]
    assert [one["RepoTags"] for one in own.api.get("/images/json")] == [["busybox:latest"]]
    refused = both("system", "prune", "--volumes", "--filter", "until=1h", code=1)
    assert 'The "until" filter is not supported with "--volumes"' in refused.err


@pair
def test_builder_prune(both: Cli) -> None:
    assert both("builder", "prune", "-f").out == "Total reclaimed space: 0B\n"


@pair
def test_image_prune_filters(both: Cli, own: Daemon) -> None:
    both("tag", "busybox", "other:1")
    both("create", "--name", "user", "busybox")
    for number, labels in enumerate(("a=1", "a=2", "b=1")):
        both("commit", "-c", f"LABEL {labels}", "user", f"made:{number}")
    both("image", "prune", "-af", "--filter", "label=a=1")
    both("image", "prune", "-af", "--filter", "until=1h")
    assert sorted(both("images", "--format", "{{.Repository}}:{{.Tag}}").lines) == [
        "busybox:latest",
        "made:1",
        "made:2",
        "other:1",
    ]
    done = both("image", "prune", "-af", "--filter", "label!=b").lines
    assert "untagged: made:1" in done
    both("image", "prune", "-af")
    assert sorted(both("images", "--format", "{{.Repository}}:{{.Tag}}").lines) == [
        "busybox:latest",
        "other:1",
    ]
    refused = both("image", "prune", "-f", "--filter", "nonsense=1", code=1)
    assert "invalid filter 'nonsense'" in refused.err
