"""Builds by the API alone, for tests that need no client."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from support.engine import Engine


def context(dockerfile: str, **files: str | bytes) -> bytes:
    """An archive with a Dockerfile and files; in their names "__" stands for "/"."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in {"Dockerfile": dockerfile, **files}.items():
            data = text.encode() if isinstance(text, str) else text
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def archive_of(directory: Path) -> bytes:
    """An archive of a directory, with its files' modes and times."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(directory, arcname=".")
    return out.getvalue()


class Built:
    """What a build has said.

    Attributes:
        error: its last message; empty when it has worked.
    """

    def __init__(self, status: int, body: bytes) -> None:
        messages: list[dict[str, Any]] = [json.loads(line) for line in body.splitlines() if line.strip()]
        self.status = status
        self.text = "".join(one.get("stream", "") for one in messages)
        self.error = "".join(one.get("error", one.get("message", "")) for one in messages)
        ids = [one["aux"]["ID"] for one in messages if one.get("aux")]
        self.image = ids[-1] if ids else ""

    def outputs(self) -> list[list[str]]:
        """The lines that each RUN has written."""
        parts = self.text.split(" ---> Running in ")[1:]
        return [part.split(" ---> ")[0].split("\n")[1:-1] for part in parts]

    @property
    def hits(self) -> int:
        """How many steps had been done before."""
        return self.text.count(" ---> Using cache")


def build(engine: Engine, body: bytes, headers: dict[str, str] | None = None, **query: str) -> Built:
    """Build an image of a context."""
    answer = engine.api(
        "POST",
        f"/build?{urlencode(query)}",
        body,
        headers={"Content-Type": "application/x-tar", **(headers or {})},
        timeout=300,
    )
    return Built(answer.status, answer.body)


def members(engine: Engine, image: str) -> dict[str, tarfile.TarInfo]:
    """The files of an image, by name."""
    made = engine.api("POST", "/containers/create", {"Image": image, "Cmd": ["x"]}).json()["Id"]
    try:
        exported = engine.api("GET", f"/containers/{made}/export").body
    finally:
        engine.api.remove(made)
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        return {one.name.rstrip("/"): one for one in archive}


@contextmanager
def tidied(engine: Engine) -> Iterator[None]:
    """Images and containers that a block of code has left go at its end."""
    before = {image["Id"] for image in engine.api.get("/images/json?all=1")}
    known = {container["Id"] for container in engine.api.containers()}
    yield
    for container in engine.api.containers():
        if container["Id"] not in known:
            engine.api.remove(container["Id"])
    for _ in range(50):
        new = [one["Id"] for one in engine.api.get("/images/json?all=1") if one["Id"] not in before]
        if not new:
            return
        for one in new:
            engine.api("DELETE", f"/images/{one}?force=1")
    pytest.fail("images of builds cannot be removed")
