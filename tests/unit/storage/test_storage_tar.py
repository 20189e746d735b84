"""Reading and writing tar archives, held against the standard library and GNU tar."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from sampan.storage import InvalidLayer
from sampan.storage.tar_reader import Member, Source, members, padding
from sampan.storage.tar_writer import TarWriter
from support.layers import entry, layer


def read(data: bytes) -> list[tuple[Member, bytes]]:
    source = Source(io.BytesIO(data))
    found = []
    for member in members(source):
        found.append((member, source.exact(member.size)))
        source.skip(padding(member.size))
    return found


@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_the_standard_library_writes(style: int) -> None:
    out = io.BytesIO()
    directory = "d" * 60 + "/" + "e" * 60
    with tarfile.open(fileobj=out, mode="w", format=style) as archive:
        for info, data in (
            entry(directory, "dir", mode=0o1777),
            entry(directory + "/file", data=b"x" * 700, uid=1234, gid=77, mode=0o4755),
            entry("link", "symlink", linkname="t" * 90),
            entry("hard", "link", linkname=directory[:90]),
            entry("null", "char", devmajor=1, devminor=3),
        ):
            archive.addfile(info, io.BytesIO(data))
    found = read(out.getvalue())
    assert [(m.name.decode().rstrip("/"), m.kind) for m, _ in found] == [
        (directory, b"5"), (directory + "/file", b"0"), ("link", b"2"), ("hard", b"1"), ("null", b"3"),
    ]  # fmt: skip
    member, data = found[1]
    assert (member.uid, member.gid, member.mode, data) == (1234, 77, 0o4755, b"x" * 700)
    assert (found[2][0].link, found[4][0].major, found[4][0].minor) == (b"t" * 90, 1, 3)


def test_reads_long_names_large_numbers_times_and_attributes() -> None:
    name, link = "n/" * 150 + "é", "l/" * 200
    records = {"mtime": "1234567890.123456789", "SCHILY.xattr.user.a": "v", "uid": "3000000000"}
    found = read(layer(entry(name, data=b"1", pax_headers=records), entry("s", "symlink", linkname=link)))
    member = found[0][0]
    assert (member.name.decode(), member.mtime_ns, member.uid) == (name, 1234567890123456789, 3_000_000_000)
    assert member.xattrs == {"user.a": b"v"}
    assert found[1][0].link.decode() == link


@pytest.mark.parametrize("style", ["gnu", "posix"])
@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_reads_sparse_files_of_gnu_tar(tmp_path: Path, style: str, version: str) -> None:
    with (tmp_path / "f").open("wb") as file:
        for number in range(12):
            file.seek(number << 20)
            file.write(b"%d" % number * 5000)
        file.truncate(20 << 20)
    command = [
        "tar",
        "-C",
        tmp_path,
        f"--format={style}",
        "-S",
        f"--sparse-version={version}",
        "-cf",
        "-",
        "f",
    ]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    ((member, stored),) = read(data)
    assert member.sparse is not None
    rebuilt = bytearray(member.real_size)
    at = 0
    for offset, count in member.sparse:
        rebuilt[offset : offset + count] = stored[at : at + count]
        at += count
    assert (member.name, bytes(rebuilt)) == (b"f", (tmp_path / "f").read_bytes())


def test_what_is_written_reads_back_here_and_elsewhere() -> None:
    out = io.BytesIO()
    writer = TarWriter(out)
    long = b"d/" * 120 + b"f\xff"
    writer.header(
        long,
        b"0",
        mode=0o6711,
        uid=5_000_000,
        gid=2,
        size=3,
        mtime_ns=-1_500_000_000,
        xattrs={"user.x": b"\0\n="},
    )
    writer.data(b"abc")
    writer.header(b"dir/", b"5", mode=0o1755, mtime_ns=1_700_000_000_000_000_001)
    writer.header(b"dev", b"3", device=(10, 200))
    writer.close()
    found = [member for member, _ in read(out.getvalue())]
    first = found[0]
    assert (first.name, first.mode, first.uid, first.mtime_ns) == (long, 0o6711, 5_000_000, -1_500_000_000)
    assert first.xattrs == {"user.x": b"\0\n="}
    assert found[1].mtime_ns == 1_700_000_000_000_000_001
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        infos = archive.getmembers()
        assert [info.uid for info in infos] == [5_000_000, 0, 0]
        assert (infos[2].devmajor, infos[2].devminor) == (10, 200)
    listed = subprocess.run(["tar", "tf", "-"], input=out.getvalue(), capture_output=True, check=True)
    assert listed.stdout.count(b"\n") == 3


def test_refuses_broken_archives() -> None:
    good = layer(entry("a", data=b"x" * 1000))
    for name, data in {
        "noise": b"\x01" * 2048,
        "half a header": good[:100],
        "a changed header": b"b" + good[1:],
        "data after the end": good[:1536] + bytes(512) + b"x" * 512,
        "a header that ends": good[:512] + b"",
    }.items():
        with pytest.raises(InvalidLayer):
            read_all(data)
            pytest.fail(name)


def read_all(data: bytes) -> None:
    source = Source(io.BytesIO(data))
    for member in members(source):
        source.skip(member.size + padding(member.size))
