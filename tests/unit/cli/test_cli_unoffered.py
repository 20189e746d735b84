"""checkpoint and trust: one line says what is not there and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "src"


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("checkpoint create c one --leave-running", "sampan pause"),
        ("checkpoint ls c", "sampan commit"),
        ("checkpoint remove --checkpoint-dir /x c one", "CRIU"),
        ("trust inspect --pretty busybox", "digest"),
        ("trust sign busybox:1", "cosign"),
        ("trust revoke -y busybox", "Notary"),
        ("trust key generate me", "notation"),
        ("trust key load --name me key.pem", "Notary"),
        ("trust signer add --key a --key b me busybox", "Notary"),
        ("trust signer remove -f me busybox", "Notary"),
    ],
)
def test_they_are_refused_in_one_line(words: str, advice: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sampan.cli", *words.split()],
        capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(SOURCE)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "not offered" in done.stderr and advice in done.stderr
    assert done.stderr.count("\n") == 1
