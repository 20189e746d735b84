"""docs/python.md: its tour does what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.engine import SOURCE, Engine

PAGE = SOURCE.parent / "docs" / "python.md"


def test_the_tour(engine: Engine, busybox: str, tmp_path: Path) -> None:
    text = PAGE.read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (printed,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    script = tmp_path / "tour.py"
    script.write_text(program)
    before = engine.api.containers()
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "SAMPAN_HOST": engine.host},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == (printed, "")
    assert engine.api.containers() == before
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(script)],
        env={**os.environ, "MYPYPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=110,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


def test_the_page_names_what_there_is() -> None:
    """Every public name of the client's is in the page's tables."""
    from sampan.client import Container, Containers, Images, Networks, Session, Volumes

    words = set(re.findall(r"`(?:s\.)?(\w+)", PAGE.read_text()))
    for kind in (Container, Containers, Images, Networks, Volumes, Session):
        public = {name for name in vars(kind) if not name.startswith("_")}
        assert public <= words, f"{kind.__name__}: {public - words} not described"
