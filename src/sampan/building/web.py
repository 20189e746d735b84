"""ADD of a URL: the file is fetched, and lies in the build's own directory until the step is done."""

from __future__ import annotations

import hashlib
import os
import tempfile
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sampan.building.copying import Source
from sampan.building.job import Job
from sampan.errors import InvalidParameter

_PIECE_BYTES = 1 << 18


def is_url(word: str) -> bool:
    """Whether a word of ADD names something of the web."""
    return word.startswith(("http://", "https://"))


def fetch(job: Job, url: str, target: str, checksum: str = "") -> Source:
    """Fetch a file; it stays until the build is over.

    Args:
        target: where it is to be put, for whether it needs a name.
        checksum: the digest that it must have; empty for any.

    Raises:
        InvalidParameter: there is no name for it, or it is another file than the digest's.
        RegistryError: it cannot be had.
    """
    algorithm, _, wanted = checksum.partition(":")
    hashed = hashlib.new(algorithm or "sha256")
    file = job.core.images.registries.fetch(url)
    try:
        name = _name(url, file.header("content-disposition"))
        if target.endswith("/") and not name:
            raise InvalidParameter(f"cannot determine filename for source {url}")
        directory = Path(tempfile.mkdtemp(dir=job.scratch))
        place = directory / "file"
        done = 0
        with place.open("xb") as out:
            while piece := file.read(_PIECE_BYTES):
                job.ending.check()
                out.write(piece)
                hashed.update(piece)
                done += len(piece)
                detail = {"current": done} if file.length is None else {"current": done, "total": file.length}
                job.output.message({"id": name or url, "status": "Downloading", "progressDetail": detail})
        if checksum and hashed.hexdigest() != wanted:
            raise InvalidParameter(
                f"digest mismatch {algorithm}:{hashed.hexdigest()}: {url} is not {checksum}"
            )
        place.chmod(0o600)
        modified = file.header("last-modified")
        try:
            moment = parsedate_to_datetime(modified).timestamp() if modified else 0.0
        except (TypeError, ValueError):
            moment = 0.0
        os.utime(place, (moment, moment))
    finally:
        file.close()
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    return Source(root, "/file", name or "file", directory=False, may_unpack=False)


def _name(url: str, disposition: str) -> str:
    """What a file is called: by its URL, or else by who has it; "" for nothing that can be a file's name."""
    said = Message()
    said["Content-Disposition"] = disposition.encode("ascii", "replace").decode()
    for text in (unquote(urlsplit(url).path), said.get_filename("")):
        name = os.path.basename(text)
        if name not in ("", ".", "..") and "\0" not in name:
            return name
    return ""
