"""Users and groups as the image's own files know them, whatever its author put there."""

import os

import pytest

from sampan.engine.spec import lookup_user
from sampan.errors import InvalidParameter

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment
broken
ann:x:1000:1001:Ann:/home/ann:/bin/sh
1001:x:1234:1:odd name:/odd:/bin/sh
nohome:x:1002:1002::
minus:x:-1:-1::/:/bin/sh
"""
GROUP = "root:x:0:\nann:x:1001:\nwheel:x:10:root,ann\naudio:x:63:bob,ann\n"


@pytest.fixture
def root(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "uid", "gid", "more", "home"),
    [
        ("", 0, 0, [0, 10], "/root"),
        ("0", 0, 0, [0, 10], "/root"),
        ("ann", 1000, 1001, [1001, 10, 63], "/home/ann"),
        ("1000", 1000, 1001, [1001, 10, 63], "/home/ann"),
        ("ann:wheel", 1000, 10, [10], "/home/ann"),
        ("ann:63", 1000, 63, [63], "/home/ann"),
        ("ann:4000", 1000, 4000, [4000], "/home/ann"),
        ("5000", 5000, 0, [0], "/"),
        ("5000:5001", 5000, 5001, [5001], "/"),
        ("1001", 1234, 1, [1], "/odd"),
        (":wheel", 0, 10, [10], "/root"),
    ],
)
def test_forms(root, text, uid, gid, more, home):
    user = lookup_user(str(root), text)
    assert (user.uid, user.gid, user.additional_gids, user.home) == (uid, gid, more, home)


def test_added_groups(root):
    assert lookup_user(str(root), "ann", ["audio", "900"]).additional_gids == [1001, 10, 63, 900]
    with pytest.raises(InvalidParameter, match="Unable to find group nope"):
        lookup_user(str(root), "ann", ["nope"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("bob", "unable to find user bob: no matching entries in passwd file"),
        ("minus", "unable to find user minus"),
        ("ann:nope", "unable to find group nope: no matching entries in group file"),
        ("2147483648", "uids and gids must be in range 0-2147483647"),
        ("-1", "unable to find user -1"),
    ],
)
def test_refusals(root, text, complaint):
    with pytest.raises(InvalidParameter, match=complaint):
        lookup_user(str(root), text)


def test_an_image_without_the_files(tmp_path):
    assert lookup_user(str(tmp_path), "7:8").gid == 8
    assert lookup_user(str(tmp_path), "").home == "/"


def test_the_hosts_files_are_out_of_reach(tmp_path):
    (tmp_path / "secret").write_text("intruder:x:666:666::/:/bin/sh\n")
    image = tmp_path / "image"
    (image / "etc").mkdir(parents=True)
    for target in (str(tmp_path / "secret"), "../../secret", "/proc/self/root" + str(tmp_path / "secret")):
        (image / "etc/passwd").unlink(missing_ok=True)
        os.symlink(target, image / "etc/passwd")
        with pytest.raises(InvalidParameter, match="unable to find user intruder"):
            lookup_user(str(image), "intruder")


def test_a_pipe_in_the_files_place_does_not_hang(root):
    (root / "etc/passwd").unlink()
    os.mkfifo(root / "etc/passwd")
    assert lookup_user(str(root), "5").uid == 5


def test_what_is_large_is_not_read_in_haste(root):
    assert lookup_user(str(root), "ann:wheel", prompt=True).gid == 10
    with (root / "etc/group").open("a") as file:
        file.write("#" * (1 << 16))
    assert lookup_user(str(root), "ann:wheel").gid == 10
    with pytest.raises(BlockingIOError):
        lookup_user(str(root), "ann:wheel", prompt=True)
