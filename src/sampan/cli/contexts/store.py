"""The store of contexts below docker's folder: contexts/meta/<id>/meta.json, contexts/tls/<id>/<endpoint>/*.

The id is the SHA-256 of the name. https://docs.docker.com/engine/manage-resources/contexts/ ; the files are
those that docker 19.03 and later read and write. Members that we do not know are kept.
"""

from __future__ import annotations

import os

from sampan.cli import docker_config
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DEFAULT = "default"
ENDPOINT = "docker"
_FIRST = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_PATTERN = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"
_LARGEST_FILE = 10 << 20  # of meta.json and of a certificate, as docker limits them


class NotFound(CommandError):
    """No context of that name."""


class Context:
    """One context as the store has it.

    Attributes:
        name: as the user calls it.
        metadata: Description, and what others have put there.
        endpoints: by kind; `docker` has Host and SkipTLSVerify.
        tls: names of the TLS files by endpoint.
    """

    __slots__ = ("endpoints", "metadata", "name", "tls")

    def __init__(
        self, name: str, metadata: dict[str, Any], endpoints: dict[str, Any], tls: dict[str, list[str]]
    ) -> None:
        self.name = name
        self.metadata = metadata
        self.endpoints = endpoints
        self.tls = tls

    @property
    def host(self) -> str:
        """The daemon's address, "" for the default one."""
        return str((self.endpoints.get(ENDPOINT) or {}).get("Host") or "")

    @property
    def skips_verification(self) -> bool:
        """Whether the daemon's certificate is taken unseen."""
        return bool((self.endpoints.get(ENDPOINT) or {}).get("SkipTLSVerify"))

    @property
    def description(self) -> str:
        """What the user says of it."""
        return str(self.metadata.get("Description") or "")

    def described(self) -> dict[str, Any]:
        """The JSON of meta.json."""
        return {"Name": self.name, "Metadata": self.metadata, "Endpoints": self.endpoints}


def valid(name: str) -> bool:
    """Whether a context may have this name."""
    return len(name) > 1 and name[0] in _FIRST and set(name) <= set(_FIRST + "_.+-")


def check_name(name: str) -> None:
    """Refuse a name that no context may have, or that is not the user's to give."""
    if not name:
        raise CommandError("context name cannot be empty")
    if name == DEFAULT:
        raise CommandError('"default" is a reserved context name')
    if not valid(name):
        raise CommandError(
            f'context name "{name}" is invalid, names are validated against regexp "{_PATTERN}"'
        )


def identity(name: str) -> str:
    """The name of a context's directories."""
    from hashlib import sha256

    return sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def meta_folder(name: str) -> str:
    """Where meta.json is."""
    return os.path.join(docker_config.folder(), "contexts", "meta", identity(name))


def tls_folder(name: str) -> str:
    """Where the TLS files are, in a folder for each endpoint."""
    return os.path.join(docker_config.folder(), "contexts", "tls", identity(name))


def load(name: str) -> Context:
    """One context.

    Raises:
        NotFound: there is none of that name.
        CommandError: its files cannot be read.
    """
    path = os.path.join(meta_folder(name), "meta.json")
    try:
        return _read(path, tls_folder(name))
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f'context "{name}": context not found: open {path}: no such file or directory'
        ) from None
    except OSError as error:
        raise CommandError(f'context "{name}": open {path}: {(error.strerror or "").lower()}') from None
    except ValueError as error:
        raise CommandError(f'context "{name}": parsing {path}: {error}') from None


def _read(path: str, tls: str) -> Context:
    with open(path, "rb") as file:
        data = file.read(_LARGEST_FILE)
    return parse(data, _tls_files(tls))


def parse(data: bytes, tls: dict[str, list[str]]) -> Context:
    """A context of the bytes of meta.json; ValueError when they are none."""
    from sampan.cli.jsontext import parse as parse_json

    found = parse_json(data)
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object")
    metadata, endpoints = found.get("Metadata") or {}, found.get("Endpoints") or {}
    if not isinstance(metadata, dict) or not isinstance(endpoints, dict):
        raise ValueError("Metadata and Endpoints must be JSON objects")
    return Context(str(found.get("Name") or ""), metadata, endpoints, tls)


def _tls_files(folder: str) -> dict[str, list[str]]:
    try:
        endpoints = sorted(os.listdir(folder))
    except OSError:
        return {}
    found = {}
    for endpoint in endpoints:
        try:
            found[endpoint] = sorted(os.listdir(os.path.join(folder, endpoint)))
        except OSError:
            continue
    return found


def everyone() -> Iterator[Context]:
    """All contexts of the store; a broken one is an error that names its file.

    Raises:
        CommandError: one cannot be read.
    """
    folder = os.path.join(docker_config.folder(), "contexts", "meta")
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise CommandError(f"open {folder}: {(error.strerror or '').lower()}") from None
    for name in names:
        path = os.path.join(folder, name, "meta.json")
        try:
            yield _read(path, os.path.join(os.path.dirname(os.path.dirname(folder)), "contexts", "tls", name))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise CommandError(f"open {path}: {(error.strerror or '').lower()}") from None
        except ValueError as error:
            raise CommandError(f"parsing {path}: {error}") from None


def exists(name: str) -> bool:
    """Whether the store has it."""
    return os.path.exists(os.path.join(meta_folder(name), "meta.json"))


def save(context: Context, tls: dict[str, dict[str, bytes]] | None = None) -> None:
    """Write a context, whole or not at all.

    Args:
        tls: contents of the TLS files by endpoint and name, all of them; None leaves them as they are.

    Raises:
        CommandError: it cannot be written.
    """
    from sampan.cli.jsontext import dump

    try:
        if tls is not None:
            _remove_tree(tls_folder(context.name))
            for endpoint, files in tls.items():
                if files:
                    folder = os.path.join(tls_folder(context.name), endpoint)
                    os.makedirs(folder, mode=0o700, exist_ok=True)
                    for name, data in files.items():
                        _write(os.path.join(folder, name), data, 0o600)
        folder = meta_folder(context.name)
        os.makedirs(folder, mode=0o755, exist_ok=True)
        text = dump(context.described()).encode("utf-8", "surrogateescape")
        _write(os.path.join(folder, "meta.json"), text, 0o644)
    except OSError as error:
        raise CommandError(
            f'context "{context.name}": open {error.filename}: {(error.strerror or "").lower()}'
        ) from None


def remove(name: str) -> bool:
    """Remove a context; whether there was one. Its TLS files go first: a crash leaves no keys behind."""
    there = exists(name)
    try:
        _remove_tree(tls_folder(name))
        _remove_tree(meta_folder(name))
    except OSError as error:
        raise CommandError(f'context "{name}": remove {error.filename}: {error.strerror}') from None
    return there


def tls_data(name: str) -> dict[str, dict[str, bytes]]:
    """The contents of a context's TLS files."""
    folder = tls_folder(name)
    return {
        endpoint: {one: read_file(os.path.join(folder, endpoint, one)) for one in files}
        for endpoint, files in _tls_files(folder).items()
    }


def read_file(path: str) -> bytes:
    """A file that has to be read whole, and must not be huge."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise CommandError(f"open {path}: {(error.strerror or '').lower()}") from None
    if len(data) > _LARGEST_FILE:
        raise CommandError(f"{path}: larger than {_LARGEST_FILE} bytes")
    return data


def _write(path: str, data: bytes, mode: int) -> None:
    part = f"{path}.{os.getpid()}"
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    except OSError:
        os.unlink(part)
        raise
    finally:
        os.close(fd)
    os.rename(part, path)


def _remove_tree(folder: str) -> None:
    import shutil

    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
