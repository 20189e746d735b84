"""A context as an archive: `meta.json` and `tls/<endpoint>/<file>` in a tar; docker reads zip too.

Nothing is unpacked to a path that the archive names: members are read into memory and written by the store.
"""

from __future__ import annotations

import io

from sampan.cli.contexts import store
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST = 10 << 20


def pack(context: store.Context, tls: dict[str, dict[str, bytes]]) -> bytes:
    """The archive of a context."""
    import tarfile

    from sampan.cli.jsontext import dump

    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:

        def add(name: str, data: bytes | None, mode: int) -> None:
            member = tarfile.TarInfo(name)
            member.mode = mode
            if data is None:
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            else:
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))

        add("meta.json", dump(context.described()).encode("utf-8", "surrogateescape"), 0o644)
        add("tls", None, 0o700)
        for endpoint, files in tls.items():
            add(f"tls/{endpoint}", None, 0o700)
            for name, data in files.items():
                add(f"tls/{endpoint}/{name}", data, 0o600)
    return made.getvalue()


def unpack(data: bytes, name: str) -> tuple[store.Context, dict[str, dict[str, bytes]]]:
    """The context in an archive, under the name it is to have.

    Raises:
        CommandError: it is no such archive.
    """
    context = None
    tls: dict[str, dict[str, bytes]] = {}
    for path, content in _zip_members(data) if data[:4] == b"PK\x03\x04" else _tar_members(data):
        parts = path.strip("/").split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise CommandError(f"unexpected path in the archive: {path}")
        if parts == ["meta.json"]:
            try:
                context = store.parse(content, {})
            except ValueError as error:
                raise CommandError(f"parsing meta.json: {error}") from None
            context.name = name
        elif parts[0] == "tls" and len(parts) == 3:
            tls.setdefault(parts[1], {})[parts[2]] = content
        else:
            raise CommandError("invalid context: unexpected file")
    if context is None:
        raise CommandError("invalid context: no metadata found")
    return context, tls


def _tar_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    import tarfile

    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if member.isdir():
                    continue
                file = archive.extractfile(member) if member.isreg() else None
                if file is None:
                    raise CommandError("invalid context: unexpected file")
                yield member.name, file.read()
    except (tarfile.TarError, EOFError) as error:
        raise CommandError(f"invalid context: no tar or zip archive ({error})") from None


def _zip_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    import zipfile

    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > _LARGEST:
                raise CommandError(f"invalid context: larger than {_LARGEST} bytes")
            for member in archive.infolist():
                if not member.is_dir():
                    yield member.filename, archive.read(member)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise CommandError(f"invalid context: no tar or zip archive ({error})") from None
