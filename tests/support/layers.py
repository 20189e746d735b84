"""Small archives for tests of layers, built member by member with the standard library's writer."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

KINDS = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "char": tarfile.CHRTYPE,
    "fifo": tarfile.FIFOTYPE,
}


def entry(name: str, kind: str = "file", data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """One member; `fields` are attributes of `TarInfo`."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime = KINDS[kind], len(data), 1_700_000_000
    info.mode = 0o755 if kind == "dir" else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def layer(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """An archive of these members, in this order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """All that can be seen of each file below a directory; hard links by the first name of their file."""
    found: dict[str, tuple[object, ...]] = {}
    first: dict[tuple[int, int], str] = {}
    for place, folders, files in os.walk(root):
        for name in sorted(folders + files):
            path = os.path.join(place, name)
            info = os.lstat(path)
            relative = os.path.relpath(path, root)
            content: object = None
            if stat.S_ISREG(info.st_mode):
                content = (info.st_size, hash(Path(path).read_bytes()))
            elif stat.S_ISLNK(info.st_mode):
                content = os.readlink(path)
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
                if not key.startswith("trusted.overlay.")
            }
            link = first.setdefault((info.st_dev, info.st_ino), relative)
            found[relative] = (
                oct(info.st_mode),
                info.st_uid,
                info.st_gid,
                info.st_rdev,
                info.st_mtime_ns,
                content,
                sorted(xattrs.items()),
                None if stat.S_ISDIR(info.st_mode) else link,
            )
    return found
