#!/usr/bin/env python3
"""Builds the packages for Debian and Ubuntu: sampan, and sampan-docker, the command `docker` that is ours.

    packaging/build_deb.py [--output DIRECTORY] [--architecture amd64|arm64]

The Python packages that Sampan needs lie inside, in an environment that serves every Python which these
distributions have: /usr/lib/sampan is a venv (its python is the system's) with a site-packages for each
version, for what is compiled, and a common directory for the rest. Nothing is compiled here, and no tool but
dpkg-deb(1) called. The same checkout gives the same bytes: times are those of the last commit, or of
SOURCE_DATE_EPOCH, and wheels are pinned (wheels.py).
"""

from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import wheels
from wheels import PROCESSORS, PYTHONS, ROOT, PackagingError

sys.path.insert(0, str(ROOT / "src"))

from sampan.cli.completing.scripts import script
from sampan.manual import write_man

DEBIAN = ROOT / "packaging/debian"
UNITS = ROOT / "packaging/systemd"
HOME = "usr/lib/sampan"
COMPRESSIONS = ("xz", "zstd", "gzip", "none")

# With the private environment's python, which does not look at the user's packages or PYTHONPATH.
COMMAND = """#!/usr/lib/sampan/bin/python3 -I
import sys

from {module} import main

sys.exit(main())
"""
COMMANDS = {"sampan": "sampan.cli", "sampand": "sampan.daemon", "sampan-runtime": "sampan.runtime.command"}
# Where each shell looks for the completion of a command.
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/{}",
    "zsh": "usr/share/zsh/vendor-completions/_{}",
    "fish": "usr/share/fish/vendor_completions.d/{}.fish",
}
VENV = "home = /usr/bin\ninclude-system-site-packages = false\n"

FILES = (
    (UNITS / "sampan.service", "usr/lib/systemd/system/sampan.service"),
    (UNITS / "sampan.socket", "usr/lib/systemd/system/sampan.socket"),
    (UNITS / "user/sampan.service", "usr/lib/systemd/user/sampan.service"),
    (UNITS / "user/sampan.socket", "usr/lib/systemd/user/sampan.socket"),
    (UNITS / "sampan.sysusers", "usr/lib/sysusers.d/sampan.conf"),
    (UNITS / "sampan.sysctl", "usr/lib/sysctl.d/sampan.conf"),
    (UNITS / "sampan.modules", "usr/lib/modules-load.d/sampan.conf"),
    (DEBIAN / "logrotate", "etc/logrotate.d/sampan"),
    (DEBIAN / "copyright", "usr/share/doc/sampan/copyright"),
)
DOCKER_FILES = (
    (UNITS / "sampan-docker.tmpfiles", "usr/lib/tmpfiles.d/sampan-docker.conf"),
    (DEBIAN / "copyright", "usr/share/doc/sampan-docker/copyright"),
)


def version(suffix: str = "") -> str:
    """The package's version: that of the source, with what comes before a release sorted before it."""
    source = ast.parse((ROOT / "src/sampan/__init__.py").read_text())
    for statement in source.body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__version__":
            found = re.sub(r"\.?(a|b|rc|dev)(?=\d)", r"~\1", ast.literal_eval(statement.value))
            return f"{found}{suffix}"
    raise PackagingError("src/sampan/__init__.py has no __version__")


def epoch() -> str:
    """The time that everything in a package has: SOURCE_DATE_EPOCH, or that of the last commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return given
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        raise PackagingError(
            "not a git checkout: set SOURCE_DATE_EPOCH to the time of the release"
        ) from error


def build(
    output: Path,
    cache: Path,
    architecture: str = "amd64",
    suffix: str = "",
    compression: str = "xz",
    offline: bool = False,
) -> list[Path]:
    """Build both packages.

    Args:
        output: the directory to put them in.
        cache: of wheels.
        architecture: Debian's name of it.
        suffix: what the version gets besides the source's, `+local1` for example.
        compression: of the contents, one of `COMPRESSIONS`.
        offline: build from the cache alone.

    Raises:
        PackagingError: with what is missing.
    """
    if shutil.which("dpkg-deb") is None:
        raise PackagingError("needs the program dpkg-deb (Debian: dpkg)")
    output.mkdir(parents=True, exist_ok=True)
    number = version(suffix)
    with tempfile.TemporaryDirectory(prefix="sampan-deb-") as scratch:
        main = Path(scratch, "sampan")
        _environment(main / HOME, cache, architecture, offline)
        for name, module in COMMANDS.items():
            _write(main / "usr/bin" / name, COMMAND.format(module=module), 0o755)
        _write(main / HOME / "leave", (DEBIAN / "leave").read_text(), 0o755)
        _directory(main / "etc/sampan")
        _install(main, FILES)
        _changelog(main / "usr/share/doc/sampan/changelog.gz", number)
        _documents(main)
        _completions(main, "sampan")
        _control(main, "", number, architecture, ("templates", "triggers"))
        alias = Path(scratch, "sampan-docker")
        _directory(alias / "usr/bin")
        (alias / "usr/bin/docker").symlink_to("sampan")
        _install(alias, DOCKER_FILES)
        _completions(alias, "docker")
        _control(alias, "-docker", number, "all", ())
        return [
            _pack(main, output / f"sampan_{number}_{architecture}.deb", compression),
            _pack(alias, output / f"sampan-docker_{number}_all.deb", compression),
        ]


def _environment(home: Path, cache: Path, architecture: str, offline: bool) -> None:
    """The private environment: site.py and sysconfig find their way by pyvenv.cfg (PEP 405)."""
    _write(home / "pyvenv.cfg", VENV)
    _directory(home / "bin")
    (home / "bin/python3").symlink_to("/usr/bin/python3")
    found = {python: wheels.fetched(cache, architecture, python, offline) for python in PYTHONS}
    names = [{wheel.name for wheel in found[python]} for python in PYTHONS]
    common = set.intersection(*names)
    for wheel in found[PYTHONS[0]]:
        if wheel.name in common:
            wheels.unpack(wheel, home / "packages")
    for python in PYTHONS:
        place = home / f"lib/python{python}/site-packages"
        for wheel in found[python]:
            if wheel.name not in common:
                wheels.unpack(wheel, place)
        _write(place / "sampan.pth", f"/{HOME}/packages\n")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src/sampan", home / "packages/sampan", ignore=ignored)


def _install(tree: Path, files: Iterable[tuple[Path, str]]) -> None:
    for source, target in files:
        _write(tree / target, source.read_text())


def _documents(tree: Path) -> None:
    """The manual's pages, and the documentation as text: the site wants more than a package should need."""
    with tempfile.TemporaryDirectory(prefix="sampan-man-") as scratch:
        write_man(Path(scratch))
        for page in Path(scratch).rglob("sampan*"):
            target = tree / "usr/share/man" / page.relative_to(scratch).with_name(f"{page.name}.gz")
            _directory(target.parent)
            target.write_bytes(gzip.compress(page.read_bytes(), mtime=0))
    for page in (ROOT / "docs").rglob("*.md"):
        _write(tree / "usr/share/doc/sampan" / page.relative_to(ROOT / "docs"), page.read_text())


def _completions(tree: Path, command: str) -> None:
    for shell, place in COMPLETIONS.items():
        _write(tree / place.format(command), script(shell, command, True))


def _changelog(path: Path, number: str) -> None:
    """What Debian's policy (12.7) wants in every package, and where the changes really are."""
    text = f"sampan ({number}) unstable; urgency=medium\n\n  * See the history of the source.\n"
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _directory(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    _directory(path.parent)
    path.write_text(text)
    path.chmod(mode)


def _control(tree: Path, kind: str, number: str, architecture: str, more: Iterable[str]) -> None:
    """The files of DEBIAN/ (deb-control(5)), of which `kind` is the end of the name in the source."""
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    sums = [f"{hashlib.md5(file.read_bytes()).hexdigest()}  {file.relative_to(tree)}\n" for file in files]
    newest = PYTHONS[-1].split(".")
    fields = {
        "version": number,
        "architecture": architecture,
        "size": str(sum(-(-file.stat().st_size // 1024) for file in files)),
        "oldest": PYTHONS[0],
        "beyond": f"{newest[0]}.{int(newest[1]) + 1}",
    }
    place = tree / "DEBIAN"
    _write(place / "md5sums", "".join(sums))
    _write(place / "control", (DEBIAN / f"control{kind}").read_text().format_map(fields))
    settings = [f"/{file.relative_to(tree)}\n" for file in files if file.is_relative_to(tree / "etc")]
    if settings:
        _write(place / "conffiles", "".join(settings))
    for name in ("postinst", "prerm", "postrm"):
        if (DEBIAN / f"{name}{kind}").exists():
            _write(place / name, (DEBIAN / f"{name}{kind}").read_text(), 0o755)
    for name in more:
        _write(place / name, (DEBIAN / name).read_text())


def _pack(tree: Path, target: Path, compression: str) -> Path:
    for path in [tree, *tree.rglob("*")]:
        if path.is_symlink():
            continue
        executable = path.is_dir() or bool(path.stat().st_mode & 0o100)
        path.chmod(0o755 if executable else 0o644)
    command = ["dpkg-deb", "--root-owner-group", f"-Z{compression}", "--threads-max=1", "--build"]
    if compression == "zstd":
        command.insert(1, "-z3")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch(), "LC_ALL": "C.UTF-8"}
    part = target.with_name(f".{target.name}")
    done = subprocess.run(
        [*command, str(tree), str(part)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        part.unlink(missing_ok=True)
        raise PackagingError(f"dpkg-deb: {done.stderr.strip()}")
    part.replace(target)
    return target


def main() -> int:
    """The command line above."""
    parser = argparse.ArgumentParser(description="Build the packages for Debian and Ubuntu.")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", metavar="DIRECTORY")
    parser.add_argument("--wheels", type=Path, default=ROOT / "dist/wheels", metavar="DIRECTORY")
    parser.add_argument("--architecture", choices=PROCESSORS, default="amd64")
    parser.add_argument("--suffix", default="", help="more of a version: +local1")
    parser.add_argument("--compression", choices=COMPRESSIONS, default="xz")
    parser.add_argument("--offline", action="store_true", help="take wheels from the directory alone")
    given = parser.parse_args()
    if not re.fullmatch(r"([+~][a-zA-Z0-9.+~]+)?", given.suffix):
        parser.error("a suffix begins with + or ~, and has letters, digits and . + ~")
    try:
        made = build(
            given.output, given.wheels, given.architecture, given.suffix, given.compression, given.offline
        )
    except PackagingError as error:
        print(f"build_deb: {error}", file=sys.stderr)
        return 1
    print(*made, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
