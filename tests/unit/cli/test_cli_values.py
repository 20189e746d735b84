"""Small grammars: sizes, durations, mounts, ports, devices, files of pairs, references."""

import pytest

from sampan.cli import values
from sampan.cli.containers.files import read_pairs
from sampan.cli.containers.limits import comma_separated, parse_device, parse_restart, parse_ulimit
from sampan.cli.containers.mounts import parse_mount, split_volumes
from sampan.cli.containers.ports import parse_expose, parse_publish
from sampan.cli.detach import Watcher, parse_keys
from sampan.cli.reference import familiar, split


@pytest.mark.parametrize(
    ("text", "count"),
    [("512m", 512 << 20), ("1.5GiB", 3 << 29), ("2g", 2 << 30), ("7", 7), ("7b", 7), ("1kb", 1024), ("0", 0)],
)
def test_sizes(text, count):
    assert values.size(text) == count


@pytest.mark.parametrize("text", ["", "x", "1x", "-1", "1 2m", "mm"])
def test_wrong_sizes(text):
    with pytest.raises(ValueError):
        values.size(text)


def test_durations():
    assert values.duration("1h2m3.5s") == 3723500000000
    assert values.duration("0") == 0
    assert values.duration("-1.5s") == -1500000000
    with pytest.raises(ValueError, match='time: missing unit in duration "5"'):
        values.duration("5")
    with pytest.raises(ValueError, match='time: unknown unit "x" in duration "5x"'):
        values.duration("5x")


def test_processors():
    assert values.cpus("1.5") == 1_500_000_000
    assert values.cpus(".01") == 10_000_000
    with pytest.raises(ValueError, match="value is too precise"):
        values.cpus("0.0000000001")


def test_mounts():
    assert parse_mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave") == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rslave"},
    }
    assert parse_mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777") == {
        "Type": "tmpfs",
        "Target": "/t",
        "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777},
    }
    for text, words in (
        ("type=bind,src=/a", "target is required"),
        ("foo", "invalid field 'foo' must be a key=value pair"),
        ("target=/x,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
        ("type=bind,target=/x,tmpfs-size=1", "cannot mix 'tmpfs-\\*' options with mount type 'bind'"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_mount(text)


def test_volumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    binds, anonymous = split_volumes(["/a:/b:ro", "name:/c", "./d:/d", "/e"])
    assert binds == ["/a:/b:ro", "name:/c", f"{tmp_path}/d:/d"]
    assert anonymous == {"/e": {}}


def test_ports():
    assert parse_publish(["8080:80", "127.0.0.1::53/udp", "90-91:90-91"]) == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
        "90/tcp": [{"HostIp": "", "HostPort": "90"}],
        "91/tcp": [{"HostIp": "", "HostPort": "91"}],
    }
    assert parse_publish(["[::1]:1:2"]) == {"2/tcp": [{"HostIp": "::1", "HostPort": "1"}]}
    assert parse_expose(["80-81/udp"]) == {"80/udp": {}, "81/udp": {}}
    with pytest.raises(ValueError, match="invalid containerPort: foo"):
        parse_publish(["foo"])


def test_limits_devices_and_policies():
    assert parse_ulimit("nofile=10:20") == {"Name": "nofile", "Soft": 10, "Hard": 20}
    assert parse_ulimit("nproc=5") == {"Name": "nproc", "Soft": 5, "Hard": 5}
    with pytest.raises(ValueError, match="less than or equal to hard limit: 5 > 4"):
        parse_ulimit("nofile=5:4")
    assert parse_device("/dev/a:/dev/b:r")["CgroupPermissions"] == "r"
    assert parse_device("/dev/a:rw") == {
        "PathOnHost": "/dev/a",
        "PathInContainer": "/dev/a",
        "CgroupPermissions": "rw",
    }
    with pytest.raises(ValueError, match="bad mode specified: baz"):
        parse_device("foo:bar:baz")
    assert parse_restart("on-failure:3") == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert comma_separated('a,"b,c",d') == ["a", "b,c", "d"]


def test_files_of_pairs(tmp_path, monkeypatch):
    monkeypatch.setenv("TAKEN", "over")
    monkeypatch.delenv("ABSENT", raising=False)
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbfA=1\r\n# no\n\n  B= x \nTAKEN\nABSENT\nC=#d\n")
    assert read_pairs(str(file), True) == ["A=1", "B= x ", "TAKEN=over", "C=#d"]
    file.write_text("A=1\nABSENT\n")
    assert read_pairs(str(file), False) == ["A=1", "ABSENT"]
    for content, words in (
        ("=x\n", "no variable name on line '=x'"),
        ("a b=1\n", "'a b' contains whitespaces"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=words):
            read_pairs(str(file), True)


def test_references():
    assert split("busybox") == ("busybox", "", "")
    assert split("localhost:5000/a/b:1.2") == ("localhost:5000/a/b", "1.2", "")
    assert familiar("x.io/a") == "x.io/a:latest"
    with pytest.raises(ValueError, match=r"repository name \(library/Busybox\) must be lowercase"):
        split("Busybox")
    for text in ("", "a:", "a//b", "a@sha256:1", "-a", "a___b", "a:b c"):
        with pytest.raises(ValueError, match="invalid reference format"):
            split(text)


def test_detach_keys():
    assert parse_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_keys("a,ctrl-[") == b"a\x1b"
    with pytest.raises(ValueError, match="Unknown character: 'ab'"):
        parse_keys("ab")
    watcher = Watcher(b"\x10\x11")
    assert watcher.feed(b"ab\x10") == (b"ab", False)
    assert watcher.feed(b"c") == (b"\x10c", False)
    assert watcher.feed(b"\x10\x10\x11") == (b"\x10", True)


def test_through_sudo_the_caller_is_who_called_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    for name in ("SUDO_UID", "SUDO_GID"):
        monkeypatch.delenv(name, raising=False)
    assert parse_mount("type=bind,src=/a,dst=/b,idmap")["IDMap"] == "match-user"
    assert split_volumes(["/a:/b:ro,idmap"])[0] == ["/a:/b:ro,idmap=match-user"]
    monkeypatch.setenv("SUDO_UID", "1000")
    monkeypatch.setenv("SUDO_GID", "100")
    assert parse_mount("type=bind,src=/a,dst=/b,idmap=match-user,U")["IDMap"] == "1000:100"
    assert split_volumes(["/a:/b:idmap,ro", "/a:/b:idmap=7", "/a:/b"])[0] == [
        "/a:/b:idmap=1000-100,ro",
        "/a:/b:idmap=7",
        "/a:/b",
    ]
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert parse_mount("type=bind,src=/a,dst=/b,idmap")["IDMap"] == "match-user"
