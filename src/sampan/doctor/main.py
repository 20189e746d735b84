"""From the words of the command line to the report and the exit code."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from sampan.doctor import judge
from sampan.doctor.model import Line, Report
from sampan.doctor.report import Text, colours_wanted, to_json
from sampan.linux import kconfig, kernel
from sampan.linux.features import FEATURES

FIT, UNFIT, UNKNOWN = 0, 1, 125


def main(words: Sequence[str]) -> int:
    """Examine, report.

    Returns:
        0 when containers run here as they should, 1 when not, 125 when that could not be found out.
    """
    parser = argparse.ArgumentParser(prog="sampan doctor")
    parser.add_argument("--config", metavar="FILE", default="")
    parser.add_argument("--data-root", metavar="DIR", default="")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(words)
    try:
        report = examine_file(options.config) if options.config else examine_machine(options.data_root)
    except (OSError, ValueError) as error:
        said = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        print(f"sampan doctor: {said}", file=sys.stderr)
        return UNKNOWN
    sys.stdout.write(to_json(report) + "\n" if options.json else Text(colours_wanted()).render(report))
    sys.stdout.flush()
    return FIT if report.fit else UNFIT


def examine_file(path: str) -> Report:
    """What a kernel of this configuration can; nothing is tried.

    Raises:
        OSError, ValueError: it cannot be read, or is no configuration.
    """
    config = kconfig.read(path)
    version = config.version or kernel.release()
    report = Report(".".join(map(str, version)), path, assumed=config.version is None, tried=False)
    report.groups = judge.Judge(config, version, cgroup=0).groups(_age(version))
    return report


def examine_machine(data_root: str) -> Report:
    """What this machine can, by its kernel's configuration and by trying.

    Args:
        data_root: the daemon's, when it is not the one of its own configuration.
    """
    from sampan.doctor import machine, trials

    release, version = os.uname().release, kernel.release()
    config = kconfig.find(release)
    report = Report(release, config.path if config is not None else "", complete=os.geteuid() == 0)
    version_lines, cgroup = machine.lines()
    if config is not None:
        report.groups = judge.Judge(config, version, cgroup).groups([*_age(version), *version_lines])
    else:
        report.groups = [machine.only(version_lines)]
    report.groups.append(judge.limits())
    report.outcomes = trials.run(data_root)
    return report


def _age(version: tuple[int, int]) -> list[Line]:
    """A line when the kernel is too old for everything."""
    if version >= kernel.OLDEST:
        return []
    oldest = ".".join(map(str, FEATURES["openat2"].since))
    text = f"(Sampan needs {oldest} or newer: only from openat2 on are paths of containers safe to resolve)"
    return [Line("Linux", ".".join(map(str, version)), False, True, (text,))]
