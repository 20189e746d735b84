"""Authorities and certificates made by openssl(1), as a person would make them for a docker host."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


class Authority:
    """A certificate authority in a directory; `issue` makes directories with ca.pem, cert.pem and key.pem."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.certificate = directory / "ca.pem"
        _openssl(
            *(
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                f"/CN={directory.name}",
            ),
            *("-keyout", str(directory / "ca-key.pem"), "-out", str(self.certificate)),
        )

    def issue(self, name: str, extensions: str) -> Path:
        """A certificate and its key; `extensions` in the format of openssl's configuration."""
        folder = self.directory / name
        folder.mkdir()
        _openssl(
            *("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "request.pem")),
        )
        (folder / "extensions").write_text(extensions)
        _openssl(
            *("x509", "-req", "-in", str(folder / "request.pem"), "-days", "2", "-CAcreateserial"),
            *("-CA", str(self.certificate), "-CAkey", str(self.directory / "ca-key.pem")),
            *("-out", str(folder / "cert.pem"), "-extfile", str(folder / "extensions")),
        )
        (folder / "ca.pem").write_bytes(self.certificate.read_bytes())
        return folder


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"openssl {arguments[0]}: {done.stderr[-500:]}", pytrace=False)
