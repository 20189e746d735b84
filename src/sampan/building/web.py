"""ADD of a URL: the file is fetched, and lies in the build's own directory until the step is done."""

from __future__ import annotations

import os
import tempfile
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sampan.building.copying import Source
from sampan.building.ending import Ending
from sampan.building.output import Output
from sampan.engine import Core
from sampan.errors import InvalidParameter

_PIECE_BYTES = 1 << 18


def is_url(word: str) -> bool:
    """Whether a word of ADD names something of the web."""
    return word.startswith(("http://", "https://"))


def fetch(core: Core, url: str, target: str, scratch: Path, output: Output, ending: Ending) -> Source:
    """Fetch a file; it stays as long as the directory `scratch`.

    Args:
        target: where it is to be put, for whether it needs a name.

    Raises:
        InvalidParameter: there is no name for it.
        RegistryError: it cannot be had.
    """
    name = os.path.basename(unquote(urlsplit(url).path))
    if target.endswith("/") and (not name or "\0" in name):
        raise InvalidParameter(f"cannot determine filename for source {url}")
    file = core.images.registries.fetch(url)
    try:
        directory = Path(tempfile.mkdtemp(dir=scratch))
        place = directory / "file"
        done = 0
        with place.open("xb") as out:
            while piece := file.read(_PIECE_BYTES):
                ending.check()
                out.write(piece)
                done += len(piece)
                detail = {"current": done} if file.length is None else {"current": done, "total": file.length}
                output.message({"id": name or url, "status": "Downloading", "progressDetail": detail})
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
