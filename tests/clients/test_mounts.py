"""`--mount` and `-v` beyond plain binds: owners, parts of volumes and images, inherited ones, trees."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cli import Cli, docker_release
from support.engine import Daemon, Engine
from support.machine import eventually

Names = Callable[[], str]


USER, GROUP = 4321, 4322  # of nobody here


def owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


def as_user(cli: Cli, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The client as a user of its own, who may go past our directories to interpreter and socket."""
    caps = "+dac_override,+dac_read_search"
    return subprocess.run(
        [
            *("setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups"),
            *(f"--inh-caps={caps}", f"--ambient-caps={caps}", *cli.argv(*arguments)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**cli.environment, "HOME": "/"},
    )


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A directory of that user's, with a file."""
    place = tmp_path / "theirs"
    place.mkdir()
    (place / "old").write_text("old\n")
    for one in (place, place / "old"):
        os.chown(one, USER, GROUP)
    return place


# --- owners ---


def test_idmap_matches_the_caller(cli: Cli, busybox: str, theirs: Path) -> None:
    """Root in the container is who ran the command on the disk."""
    script = "touch /w/new; mkdir /w/sub; echo more >>/w/old; stat -c '%u:%g %n' /w /w/old /w/new"
    given = (
        ["-v", f"{theirs}:/w:idmap"]
        if cli.name == "docker"
        else ["--mount", f"type=bind,src={theirs},dst=/w,idmap=match-user"]
    )
    done = as_user(cli, "run", "--rm", *given, busybox, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0:0 /w\n0:0 /w/old\n0:0 /w/new\n"
    assert {owner(theirs / one) for one in ("new", "sub", "old")} == {(USER, GROUP)}
    assert (theirs / "old").read_text() == "old\nmore\n"


def test_idmap_for_another_user_of_the_container(
    cli: Cli, busybox: str, theirs: Path, tmp_path: Path
) -> None:
    script = "id -u; touch /w/new && stat -c %u:%g /w/new"
    given = ["--user", "1234:1235", "-v", f"{theirs}:/w:idmap={USER}-{GROUP}"]
    assert cli("run", "--rm", *given, busybox, "sh", "-c", script).out == "1234\n1234:1235\n"
    assert owner(theirs / "new") == (USER, GROUP)


def test_idmap_leaves_the_disks_root_alone(cli: Cli, busybox: str, theirs: Path) -> None:
    """What root has there is nobody's in the container, and nobody in there can become the disk's root."""
    (theirs / "roots").write_text("")
    os.chmod(theirs, 0o777)
    script = (
        f"stat -c %u /w/roots; chown 0 /w/old; su -s /bin/sh nobody -c true; touch /w/x; chown {USER} /w/x"
    )
    done = cli(
        "run", "--rm", "-v", f"{theirs}:/w:idmap={USER}-{GROUP}", busybox, "sh", "-c", script, code=None
    )
    assert done.out.splitlines()[0] == "65534"
    assert owner(theirs / "roots") == (0, 0)
    assert owner(theirs / "x") == owner(theirs / "old") == (USER, GROUP)


def test_idmap_of_a_volume(cli: Cli, engine: Engine, busybox: str, volume: str) -> None:
    """What the image has there is copied as the user's; /etc is root's in the image."""
    bind = f"{volume}:/etc:idmap={USER}"
    cli("run", "--rm", "-v", bind, busybox, "sh", "-c", "echo x >/etc/new; test -O /etc/passwd")
    place = Path(engine.api.get(f"/volumes/{volume}")["Mountpoint"])
    assert owner(place) == owner(place / "passwd") == owner(place / "new") == (USER, USER)


def test_cp_sees_owners_as_the_container_does(
    cli: Cli, busybox: str, theirs: Path, tmp_path: Path, name: Names
) -> None:
    one = name()
    (tmp_path / "copied").write_text("")
    cli("run", "-d", "--name", one, "-v", f"{theirs}:/w:idmap={USER}-{GROUP}", busybox, "sleep", "60")
    cli("cp", str(tmp_path / "copied"), f"{one}:/w/copied")  # root's here, and so in the container
    assert owner(theirs / "copied") == (USER, GROUP)
    assert cli("exec", one, "stat", "-c", "%u:%g", "/w/copied").out == "0:0\n"
    cli("cp", "-a", f"{one}:/w/old", str(tmp_path / "back"))
    assert owner(tmp_path / "back") == (0, 0)


def test_inspect_shows_what_was_asked(engine: Engine, busybox: str, theirs: Path, name: Names) -> None:
    one = name()
    mount = {"Type": "bind", "Source": str(theirs), "Target": "/w", "IDMap": "match-user", "Chown": True}
    tmpfs = {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": [["noexec"]], "Mode": 448}}
    volume = {"Type": "volume", "Target": "/v", "VolumeOptions": {"NoCopy": True, "Labels": {"a": "b"}}}
    asked = [mount, tmpfs, volume]
    body = {"Image": busybox, "Cmd": ["true"], "HostConfig": {"Mounts": asked}}
    assert engine.api("POST", f"/containers/create?name={one}", body).status == 201
    assert engine.api.inspect(one)["HostConfig"]["Mounts"] == asked
    assert engine.api("POST", f"/containers/{one}/start").status == 204
    assert owner(theirs / "old") == (
        0,
        0,
    )  # we are root, and U gives the files to whom the container is there


def test_idmap_makes_the_missing_source_the_callers(cli: Cli, busybox: str, theirs: Path) -> None:
    bind = f"{theirs}/a/b:/w:idmap={USER}-{GROUP}"
    cli("run", "--rm", "-v", bind, busybox, "touch", "/w/new")
    assert {owner(theirs / one) for one in ("a", "a/b", "a/b/new")} == {(USER, GROUP)}


def test_idmap_where_the_file_system_cannot(cli: Cli, busybox: str) -> None:
    """procfs has none; a container that asks for it does not start, and says why."""
    done = cli("run", "--rm", "-v", f"/proc:/w:idmap={USER}", busybox, "true", code=None)
    assert done.code in (125, 126)
    assert "offers no id-mapped mounts in this kernel" in done.err and "option U" in done.err


@pytest.mark.parametrize("word", ["idmap=1:2:3", "idmap=root", "idmap=4294967295", "idmap=", "idmap,idmap=7"])
def test_idmaps_that_mean_nothing(engine: Engine, busybox: str, word: str) -> None:
    mount = {"Type": "bind", "Source": "/etc", "Target": "/w", "IDMap": word.removeprefix("idmap=")}
    host = {"Binds": [f"/etc:/w:{word}"]} if word.count(":") == 0 else {"Mounts": [mount]}
    answer = engine.api("POST", "/containers/create", {"Image": busybox, "Cmd": ["true"], "HostConfig": host})
    assert answer.status == 400 and re.search(
        "invalid mode|expected match-user, UID:GID or UID", answer.message
    )


def test_u_gives_the_files_to_the_containers_user(cli: Cli, busybox: str, theirs: Path) -> None:
    os.symlink("/etc/passwd", theirs / "link")
    (theirs / "sub").mkdir()
    given = (
        ["-v", f"{theirs}:/w:U"] if cli.name == "docker" else ["--mount", f"type=bind,src={theirs},dst=/w,U"]
    )
    cli("run", "--rm", "--user", "1234:1235", *given, busybox, "touch", "/w/new", "/w/sub/new")
    names = ("", "old", "link", "sub", "new", "sub/new")
    assert {owner(theirs / one) for one in names} == {(1234, 1235)}
    assert owner(Path("/etc/passwd")) == (0, 0)


def test_u_does_not_touch_the_machines_own(cli: Cli, busybox: str) -> None:
    before = owner(Path("/etc/passwd"))
    done = cli("run", "--rm", "--user", "1234", "-v", "/etc:/w:U", busybox, "true", code=125)
    assert "the option U will not change the owner of /etc" in done.err
    assert owner(Path("/etc/passwd")) == before


def test_u_does_not_touch_the_machines_own_in_a_volume(cli: Cli, busybox: str, volume: str) -> None:
    cli("volume", "rm", "-f", volume)
    cli("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/media", volume)
    mount = ["-v", f"{volume}:/w:U"] if cli.name == "docker" else ["--mount", f"src={volume},dst=/w,U"]
    before = owner(Path("/media"))
    done = cli("run", "--rm", "--user", "1234", *mount, busybox, "true", code=125)
    assert "the option U will not change the owner of" in done.err
    assert owner(Path("/media")) == before


# --- parts ---


def test_part_of_a_volume(cli: Cli, busybox: str, volume: str) -> None:
    script = "mkdir -p /v/one/two; echo deep >/v/one/two/file; ln -s one/two /v/inside; ln -s /etc /v/outside"
    cli("run", "--rm", "-v", f"{volume}:/v", busybox, "sh", "-c", script)
    for part, path in (("one/two", "/m/file"), ("one/two/file", "/m"), ("inside", "/m/file")):
        option = f"type=volume,src={volume},dst=/m,volume-subpath={part}"
        assert cli("run", "--rm", "--mount", option, busybox, "cat", path).out == "deep\n"
    for part in ("missing", "outside"):
        option = f"type=volume,src={volume},dst=/m,volume-subpath={part}"
        done = cli(
            "run", "--rm", "--mount", option, busybox, "true", code=127
        )  # as docker reads "no such file"
        assert f"cannot access path {part}" in done.err and "no such file or directory" in done.err
    for part in ("../x", "/etc", "one/../../x"):
        option = f"type=volume,src={volume},dst=/m,volume-subpath={part}"
        done = cli("run", "--rm", "--mount", option, busybox, "true", code=125)
        assert "subpath must be a relative path within the volume" in done.err


def test_nothing_of_a_part_stays_mounted_on_the_machine(
    cli: Cli, daemon: Daemon, busybox: str, volume: str, name: Names
) -> None:
    cli("run", "--rm", "-v", f"{volume}:/v", busybox, "mkdir", "/v/sub")
    one = name()
    option = f"type=volume,src={volume},dst=/m,volume-subpath=sub"
    cli("run", "-d", "--name", one, "--mount", option, busybox, "sleep", "60")
    places = daemon.exec_root / "mounts"
    eventually(lambda: not list(places.iterdir()))
    assert str(places) not in Path("/proc/self/mountinfo").read_text()
    cli("exec", one, "touch", "/m/here")
    cli("restart", "-t", "0", one)
    assert cli("exec", one, "ls", "/m").out == "here\n"


def test_image_and_a_part_of_it(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    one = name()
    option = f"type=image,src={busybox},dst=/image"
    part = f"type=image,src={busybox},dst=/part,image-subpath=etc"
    script = "test -x /image/bin/busybox && cat /part/plain && touch /image/x"
    done = cli("run", "--name", one, "--mount", option, "--mount", part, busybox, "sh", "-c", script, code=1)
    assert done.out == "not a program\n" and "Read-only file system" in done.err
    shown = {mount["Destination"]: mount for mount in engine.api.inspect(one)["Mounts"]}["/image"]
    assert (shown["Type"], shown["Name"], shown["RW"]) == ("image", busybox, False)
    done = cli("run", "--rm", "--mount", "type=image,src=no-such-image,dst=/m", busybox, "true", code=125)
    assert "No such image: no-such-image" in done.err


def test_an_image_that_is_mounted_stays(cli: Cli, engine: Engine, busybox: str, name: Names) -> None:
    other, one = name(), name()
    archive = engine.docker("export", cli("create", "--name", name(), busybox, "true").out.strip()).raw
    engine.docker("import", "-", f"{other}:1", stdin=archive)
    image = f"{other}:1"
    cli("run", "-d", "--name", one, "--mount", f"type=image,src={image},dst=/m", busybox, "sleep", "60")
    image_id = engine.api.get(f"/images/{image}/json")["Id"]
    assert "is using its referenced image" in cli("rmi", image, code=1).err
    assert "image is being used by running container" in cli("rmi", "-f", image_id, code=1).err
    cli("exec", one, "test", "-x", "/m/bin/busybox")
    engine.api.remove(one)
    cli("rmi", image)


# --- inherited ones ---


def test_volumes_from_several(cli: Cli, engine: Engine, busybox: str, volume: str, name: Names) -> None:
    first, second, third = name(), name(), name()
    cli("create", "--name", first, "-v", f"{volume}:/a", "-v", "/nameless", busybox, "true")
    cli("create", "--name", second, "-v", "/etc:/b", busybox, "true")
    given = ["--volumes-from", first, "--volumes-from", f"{second}:ro,z"]
    script = "touch /a/x /nameless/y && test -f /b/passwd && touch /b/new"
    done = cli("run", "--name", third, *given, busybox, "sh", "-c", script, code=1)
    assert "Read-only file system" in done.err
    mounts = {mount["Destination"]: mount for mount in engine.api.inspect(third)["Mounts"]}
    assert (mounts["/a"]["Name"], mounts["/a"]["RW"], mounts["/b"]["RW"]) == (volume, True, False)
    nameless = mounts["/nameless"]["Name"]
    cli("rm", "-v", first)
    assert cli("run", "--rm", "--volumes-from", third, busybox, "ls", "/nameless").out == "y\n"
    cli("rm", "-v", third)
    assert engine.api("GET", f"/volumes/{nameless}").status == 404
    for mode in ("rshared", "nocopy", "ro,rw", "fast"):
        done = cli("create", "--volumes-from", f"{second}:{mode}", busybox, "true", code=1)
        assert f"invalid mode: {mode}" in done.err


# --- read-only trees, tmpfs, words ---


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """A directory with another file system mounted in it."""
    (tmp_path / "below").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "below"], check=True)
    (tmp_path / "below" / "file").write_text("")
    yield tmp_path
    subprocess.run(["umount", tmp_path / "below"], check=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("readonly", "ro ro"),
        ("readonly,bind-recursive=enabled", "ro ro"),
        ("readonly,bind-recursive=writable", "ro rw"),
        ("readonly,bind-recursive=readonly,bind-propagation=rprivate", "ro ro"),
        ("bind-recursive=disabled", "rw none"),
        ("bind-nonrecursive,readonly", "ro none"),
    ],
)
def test_recursion(cli: Cli, busybox: str, tree: Path, options: str, expected: str) -> None:
    top = "touch /m/x 2>/dev/null && printf rw || printf ro"
    below = (
        "if ! test -e /m/below/file; then echo ' none'; elif touch /m/below/x 2>/dev/null; then echo ' rw'"
    )
    script = f"{top}; {below}; else echo ' ro'; fi"
    mount = f"type=bind,src={tree},dst=/m,{options}"
    assert cli("run", "--rm", "--mount", mount, busybox, "sh", "-c", script).out == f"{expected}\n"


def test_tmpfs(cli: Cli, busybox: str) -> None:
    mount = "type=tmpfs,dst=/m,tmpfs-size=2m,tmpfs-mode=1770"
    script = "grep ' /m ' /proc/mounts; stat -c %a /m"
    seen, mode = cli("run", "--rm", "--mount", mount, busybox, "sh", "-c", script).lines
    assert "size=2048k" in seen and "noexec" in seen and mode == "1770"


@pytest.mark.parametrize("word", ["cached", "delegated", "consistent", "z", "Z", "ro,z,cached"])
def test_words_without_effect_here(cli: Cli, busybox: str, tmp_path: Path, word: str) -> None:
    cli("run", "--rm", "-v", f"{tmp_path}:/m:{word}", busybox, "test", "-d", "/m")


def test_what_contradicts_itself(engine: Engine, busybox: str, tmp_path: Path) -> None:
    bind = {"Type": "bind", "Source": str(tmp_path), "Target": "/m"}
    for mount, words in (
        (
            {"Type": "volume", "Target": "/m", "ReadOnly": True},
            "must not set ReadOnly mode when using anonymous",
        ),
        (
            {"Type": "volume", "Target": "/m", "VolumeOptions": {"Subpath": "a"}},
            "must not set Subpath when using",
        ),
        ({"Type": "image", "Target": "/m"}, "field Source must not be empty"),
        ({**bind, "ImageOptions": {"Subpath": "a"}}, "field ImageOptions must not be specified"),
        ({**bind, "BindOptions": {"ReadOnlyForceRecursive": True}}, "ReadOnlyForceRecursive needs ReadOnly"),
        ({"Type": "tmpfs", "Target": "/m", "Chown": True}, "field Chown must not be specified"),
        (
            {"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"Options": [["a", "b", "c"]]}},
            "array length: 3",
        ),
        ({"Type": "npipe", "Source": "x", "Target": "/m"}, "mount type unknown"),
        ({**bind, "Consistency": "strict"}, "invalid consistency"),
    ):
        body = {"Image": busybox, "Cmd": ["true"], "HostConfig": {"Mounts": [mount]}}
        answer = engine.api("POST", "/containers/create", body)
        assert answer.status == 400 and words in answer.message


def test_a_target_that_is_a_link_stays_inside(cli: Cli, busybox: str, tmp_path: Path, name: Names) -> None:
    """The image's link leads to /etc: the container's, not the machine's."""
    one, image = name(), f"{name()}:link"
    cli("run", "--name", one, busybox, "ln", "-s", "/etc", "/link")
    cli("commit", one, image)
    (tmp_path / "file").write_text("mine\n")
    try:
        script = "cat /etc/inside/file"
        bind = f"{tmp_path}:/link/inside"
        assert cli("run", "--rm", "-v", bind, image, "sh", "-c", script).out == "mine\n"
        assert not Path("/etc/inside").exists()
    finally:
        cli("rmi", image)


MOUNTS = (
    "type=bind,src=/etc,dst=/m", "type=bind,source=/etc,target=/m,ro",
    "type=bind,src=/etc,destination=/m,ro=0",
    "type=bind,src=/etc,dst=/m,readonly=true,bind-recursive=writable", "src=/etc,dst=/m", "src=v0,dst=/m",
    "type=bind,src=/etc,dst=/m,bind-recursive=disabled", "type=bind,src=/etc,dst=/m,bind-recursive=maybe",
    "type=bind,src=/etc,dst=/m,bind-recursive=readonly",
    "type=bind,src=/etc,dst=/m,bind-recursive=writable",
    "type=bind,src=/etc,dst=/m,readonly,bind-recursive=readonly",
    "type=bind,src=/etc,dst=/m,readonly,bind-recursive=readonly,bind-propagation=rprivate",
    "type=bind,src=/etc,dst=/m,bind-propagation=RSLAVE", "type=bind,src=/etc,dst=/m,bind-propagation=x",
    "type=bind,src=/etc,dst=/m,bind-nonrecursive", "type=bind,src=/etc,dst=/m,bind-nonrecursive=x",
     "type=bind,dst=/m", "type=bind,src=/etc",
    "type=x,dst=/m", "type=volume,dst=/m,volume-nocopy", "type=volume,dst=/m,volume-nocopy=false",
    "type=volume,dst=/m,ro", "type=volume,src=v1,dst=/m,volume-label=a=b,volume-label=c",
    "type=volume,dst=/m,volume-driver=local",
    "type=volume,src=v2,dst=/m,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=1m",
    "type=volume,src=v3,dst=/m,volume-subpath=a/b", "type=volume,dst=/m,volume-subpath=a",
    "type=volume,dst=/m,", "type=tmpfs,dst=/m,tmpfs-size=1m,tmpfs-mode=0700",
    "type=tmpfs,dst=/m,tmpfs-size=x", "type=tmpfs,dst=/m,ro", "type=tmpfs,dst=/m,tmpfs-mode=9",
    "type=tmpfs,src=/etc,dst=/m", "type=tmpfs,dst=/m,volume-nocopy", "type=image,src=busybox,dst=/m",
    "type=image,src=busybox,dst=/m,image-subpath=etc", "type=image,dst=/m",
    "type=image,src=busybox,dst=/m,image-subpath=../x", "type=bind,src=/etc,dst=/m,image-subpath=a",
    "type=bind,src=/etc,dst=/m,consistency=cached", "type=bind,src=/etc,dst=/m,consistency=", "type", "",
    ",", "dst=/m,type=npipe,src=x", "type=bind,src=/etc,dst=/m,colour=red", "type=bind,src=/etc,dst=m",
    "type=bind,src=/etc,dst=/m,volume-label=a=b", "TYPE=bind,SRC=/etc,DST=/m", 'type=volume,"dst=/a,b"',
)  # fmt: skip


def test_both_clients_ask_for_the_same(own: Daemon) -> None:
    """What docker's client makes of each `--mount` is what ours makes of it: the same body or refusal."""
    if docker_release() < (28,):
        pytest.skip("compared with docker's client from release 28 on")

    def outcome(client: Cli, text: str) -> tuple[int, str, object]:
        done = client("create", "--mount", text, own.busybox, "true", code=None)
        lines = [line for line in done.err.splitlines() if line and "--help" not in line]
        said = re.sub(r"^(docker|sampan): ", "", lines[0]) if lines else ""
        shown = own.api.inspect(done.out.strip())["HostConfig"]["Mounts"] if done.code == 0 else None
        return done.code, said, shown

    asked = [(text, outcome(own.docker, text), outcome(own.sampan, text)) for text in MOUNTS]
    differ = [f"{text}: {theirs} | {ours}" for text, theirs, ours in asked if theirs != ours]
    assert not differ, "\n".join(differ)
