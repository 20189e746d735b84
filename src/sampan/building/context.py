"""A build context: files that a client or a web server sent, in a directory of the build's own.

They are unpacked beneath that directory and looked up there by openat2(2) with it as the root, so that no
name or link in the archive reaches a file of the machine's. Owners become root's; devices are refused.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType

from sampan.building.git import is_git, repository
from sampan.dockerfile.ignoring import Ignored
from sampan.dockerfile.parsing import LIMIT_BYTES
from sampan.errors import InvalidParameter, Unsupported
from sampan.linux import beneath
from sampan.storage import InvalidArchive, extract
from sampan.storage.compression import Prefixed, sniff
from sampan.storage.tar_reader import BLOCK, Readable, looks_like_tar

IGNORE_FILE = ".dockerignore"
USUAL = "Dockerfile"


class Context:
    """A directory with a context's files, open. Use as a context manager, which closes it.

    Attributes:
        root: its descriptor.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.root)

    def receive(self, stream: Readable) -> None:
        """Unpack an archive: plain, gzip, bzip2, xz or zstd.

        Raises:
            InvalidParameter: it is none, or broken, or hostile.
        """
        try:
            extract(self.root, "/", stream, owner=(0, 0), devices=False)
        except InvalidArchive as error:
            raise InvalidParameter(f"the build context cannot be unpacked: {error.message}") from error

    def receive_remote(self, stream: Readable) -> bool:
        """Take what a URL led to: an archive, or a Dockerfile.

        Returns:
            whether it is a Dockerfile alone.

        Raises:
            InvalidParameter: it is neither.
        """
        start = b""
        while len(start) < BLOCK and (more := stream.read(BLOCK - len(start))):
            start += more
        whole = Prefixed(start, stream)
        if sniff(start) or looks_like_tar(start):
            self.receive(whole)
            return False
        text = start
        while len(text) <= LIMIT_BYTES and (more := stream.read(1 << 16)):
            text += more
        if not text.strip() or b"\0" in text or len(text) > LIMIT_BYTES:
            raise InvalidParameter("the remote context is neither an archive nor a Dockerfile")
        fd = os.open(USUAL, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self.root)
        with open(fd, "wb") as file:
            file.write(text)
        return True

    def take_dockerfile(self, name: str) -> bytes:
        """The text of the Dockerfile, which leaves the context where `.dockerignore` says so.

        Args:
            name: its path; empty for the usual one.

        Raises:
            InvalidParameter: there is none, or it is empty or too large.
        """
        chosen = name or USUAL
        data = self._read(chosen)
        if data is None and not name:
            chosen = USUAL.lower()
            data = self._read(chosen)
        if data is None:
            raise InvalidParameter(f"Cannot locate specified Dockerfile: {name or USUAL}")
        if not data.strip():
            raise InvalidParameter(f"the Dockerfile ({chosen}) cannot be empty")
        ignore = self._read(IGNORE_FILE)
        if ignore is not None:
            ignored = Ignored(ignore.decode("utf-8", "surrogateescape"))
            for one in (chosen, IGNORE_FILE):
                path = beneath.real_path(self.root, one)
                if ignored.excludes(os.path.normpath(one).lstrip("/")):
                    self._forget(path)
        return data

    def _read(self, name: str) -> bytes | None:
        """A small regular file, found beneath the root; None when there is none."""
        try:
            handle = beneath.open_path(self.root, name)
        except OSError:
            return None
        try:
            info = os.fstat(handle)
            if not stat.S_ISREG(info.st_mode):
                return None
            if info.st_size > LIMIT_BYTES:
                raise InvalidParameter(f"{name} has more than {LIMIT_BYTES} bytes")
            with open(f"/proc/self/fd/{handle}", "rb") as file:
                return file.read(LIMIT_BYTES + 1)
        finally:
            os.close(handle)

    def _forget(self, path: str) -> None:
        above, _, name = path.rpartition("/")
        parent = beneath.open_path(self.root, above or "/", os.O_PATH | os.O_DIRECTORY)
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        finally:
            os.close(parent)


def check_remote(url: str) -> None:
    """Refuse by name what cannot be fetched.

    Raises:
        Unsupported: a BuildKit session.
        InvalidParameter: no URL.
    """
    if url == "client-session":
        raise Unsupported("a context by session needs BuildKit, which is not offered: set DOCKER_BUILDKIT=0")
    if is_git(url):
        repository(url)
    elif not url.startswith(("http://", "https://")):
        raise InvalidParameter(f"remote: {url!r} is no http or https URL")
