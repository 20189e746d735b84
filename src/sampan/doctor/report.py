"""The report as text, in the layout of Docker's check of the kernel, and as JSON."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import Any

from sampan.doctor.model import FAILS, NEEDS_ROOT, NOT_TRIED, WORKS, Group, Line, Outcome, Report

_BOLD, _RED, _GREEN, _YELLOW, _BLUE, _DIM = "1", "1;31", "32", "33", "34", "2"


def colours_wanted() -> bool:
    """Whether standard output is a terminal that may be coloured (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Text:
    """The report as lines.

    Args:
        colours: whether they are coloured.
    """

    def __init__(self, colours: bool) -> None:
        self._colours = colours

    def render(self, report: Report) -> str:
        """All of it."""
        lines = []
        if report.source:
            lines += [f"info: reading kernel config from {report.source} ...", ""]
        else:
            lines += [
                self._paint("warning: cannot find this kernel's configuration", _YELLOW)
                + ": what can be tried is tried; `sampan doctor --config FILE` reads one",
                "",
            ]
        if report.assumed:
            lines += [
                self._paint("warning: the file does not say which kernel it is of", _YELLOW)
                + f": judged as Linux {report.release}",
                "",
            ]
        for group in report.groups:
            lines += [f"{group.title}:", *self._group(group, 0), ""]
        if report.tried:
            lines.append("Tried on This Machine:")
            skipped = [one.name for one in report.outcomes if one.detail == NEEDS_ROOT]
            for outcome in report.outcomes:
                if outcome.detail != NEEDS_ROOT:
                    lines += self._outcome(outcome)
            if skipped:
                word = self._paint(NOT_TRIED, _YELLOW)
                lines.append(f"- {word}, as that takes root: {', '.join(skipped)}")
            lines.append("")
        lines += self._verdict(report)
        return "\n".join(lines) + "\n"

    def _paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text

    def _group(self, group: Group, indent: int) -> list[str]:
        pad = " " * indent
        lines = []
        for line in group.lines:
            lines += [pad + text for text in self._line(line)]
        for inner in group.groups:
            if inner.title.startswith('"'):
                lines.append(f'{pad}- "{self._paint(inner.title.strip(chr(34)), _BLUE)}":')
                lines += self._group(inner, indent + 2)
            elif indent:  # more options of a driver
                lines += [f"{pad}  {inner.title}:", *self._group(inner, indent + 2)]
            else:
                lines += [f"- {inner.title}:", *self._group(inner, 2)]
        return lines

    def _line(self, line: Line) -> list[str]:
        name = line.name if line.good else self._paint(line.name, _BOLD)
        colour = _GREEN if line.good else _RED if line.needed else _YELLOW
        rest = f" {line.rest}" if line.rest else ""
        shown = [f"- {name}: {self._paint(line.state, colour)}{rest}"]
        return shown + [self._paint(f"    {note}", _DIM) for note in line.notes]

    def _outcome(self, outcome: Outcome) -> list[str]:
        colour = {WORKS: _GREEN, NOT_TRIED: _YELLOW}.get(outcome.state, _RED if outcome.needed else _YELLOW)
        detail = f" ({outcome.detail})" if outcome.detail and outcome.state != FAILS else ""
        lines = [f"- {outcome.name}: {self._paint(outcome.state, colour)}{detail}"]
        if outcome.state == FAILS:
            lines += self._what_failed(outcome)
        return lines

    def _what_failed(self, outcome: Outcome) -> list[str]:
        told = (("why", outcome.detail), ("will not work", outcome.without), ("remedy", outcome.remedy))
        return [f"    {title}: {text}" for title, text in told if text]

    def _verdict(self, report: Report) -> list[str]:
        missing, failed = report.missing(), report.failed()
        subject = "This machine" if report.tried else f"A machine with this kernel (Linux {report.release})"
        skipped = sum(one.state == NOT_TRIED for one in report.outcomes)
        rest = ""
        if skipped and not report.complete:
            rest = f" as far as was tried; {skipped} things were not, which takes root"
        if report.fit:
            word = "is fit to run containers" if report.tried else "can run containers"
            lines = [self._paint(f"{subject} {word}", _GREEN) + rest]
            if missing:
                names = ", ".join(line.name for line in missing)
                lines.append(f"The configuration lacks {names}, and yet all that is needed works here.")
            return lines
        word = "is not fit to run containers" if report.tried else "cannot run containers as it should"
        lines = [self._paint(f"{subject} {word}", _RED) + rest]
        for same in _alike(failed):
            names = ", ".join(one.name for one in same)
            without = "; ".join(dict.fromkeys(one.without for one in same if one.without))
            together = replace(same[0], without=without)
            lines += [f"- {names}: {together.detail}", *self._what_failed(together)[1:]]
        if not (report.tried and report.complete):
            lines += [
                f"- {line.name} is {line.state}: {note.strip('()')}"
                for line in missing
                for note in line.notes or ("needed",)
            ]
        if not report.tried:
            lines.append("Boot a kernel of a distribution, or build this one with these options.")
        return lines


def _alike(outcomes: list[Outcome]) -> list[list[Outcome]]:
    """Those that failed for one reason, together."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.detail, outcome.remedy), []).append(outcome)
    return list(groups.values())


def to_json(report: Report) -> str:
    """The report for programs, with member names in the manner of the API's."""
    return json.dumps(
        {
            "Fit": report.fit,
            "Kernel": report.release,
            "KernelAssumed": report.assumed,
            "Config": report.source,
            "Tried": report.tried,
            "Sections": [_group(group) for group in report.groups],
            "Trials": [_outcome(outcome) for outcome in report.outcomes],
            "Missing": [line.name for line in report.missing()],
            "Failed": [outcome.name for outcome in report.failed()],
        },
        indent=4,
        ensure_ascii=False,
    )


def _group(group: Group) -> dict[str, Any]:
    return {
        "Title": group.title.strip('"'),
        "Items": [
            {
                "Name": line.name,
                "State": line.state,
                "Good": line.good,
                "Needed": line.needed,
                "Notes": [*((line.rest,) if line.rest else ()), *line.notes],
            }
            for line in group.lines
        ],
        "Sections": [_group(one) for one in group.groups],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "Name": outcome.name,
        "State": outcome.state,
        "Needed": outcome.needed,
        "Detail": outcome.detail,
        "Without": outcome.without if outcome.state == FAILS else "",
        "Remedy": outcome.remedy if outcome.state == FAILS else "",
    }
