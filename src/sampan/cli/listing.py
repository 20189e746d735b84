"""Lists of objects: tables with docker's columns, `--format` templates, JSON lines, `-q`."""

from __future__ import annotations

from sampan.cli.app import out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

_GAP = 3
_NARROWEST = 10


class Field:
    """One column that a list knows.

    Args:
        header: its title in a table.
        value: makes its text (or value) from one object.
        argument: a template gives it a word, such as `.Label "name"`: `value(row, word)`.
        in_json: its value in the JSON of the whole object, where that differs.
    """

    __slots__ = ("argument", "header", "in_json", "value")

    def __init__(
        self,
        header: str,
        value: Callable[..., Any],
        argument: bool = False,
        in_json: Callable[[Any], Any] | None = None,
    ) -> None:
        self.header = header
        self.value = value
        self.argument = argument
        self.in_json = in_json or value


def label(row: Any, name: str) -> str:
    """One label of an object."""
    return str((row.get("Labels") or {}).get(name, ""))


def show(
    rows: Iterable[Any],
    fields: dict[str, Field],
    columns: Sequence[str],
    form: str = "",
    quiet: str = "",
    type_name: str = "*formatter.Context",
    parsing: str = "template parsing error",
    raw: str = "",
) -> None:
    """Print a list.

    Args:
        rows: the objects.
        fields: every name that a template may use.
        columns: the names in the default table.
        form: what `--format` said.
        quiet: the one field that `-q` prints.
        type_name: how Go calls the row in an error about an unknown field.
        parsing: how an error of the template is introduced.
        raw: the template that `--format raw` stands for.
    """
    if quiet and form in ("", "table"):
        for row in rows:
            out(f"{fields[quiet].value(row)}\n")
        return
    if form == "raw" and raw:
        form = raw
    if form in ("", "table"):
        table(
            [fields[name].header for name in columns],
            [[str(fields[name].value(row)) for name in columns] for row in rows],
        )
        return
    from sampan.cli.template import listing_template

    listing_template(form, rows, fields, type_name, parsing)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns aligned as Go's tabwriter does for docker: the last cell is padded to nothing."""
    align([list(headers), *[list(row) for row in rows]])


def align(lines: Sequence[Sequence[str]], narrowest: int = _NARROWEST) -> None:
    """Print cells in columns of so many characters at least, three blanks between."""
    from sampan.cli.human import width

    # A column lives as long as consecutive lines have a cell followed by another one in it.
    text = []
    widths: list[dict[int, int]] = [{} for _ in lines]
    most = max((len(line) for line in lines), default=0)
    for column in range(most - 1):
        start = 0
        while start < len(lines):
            if len(lines[start]) - 1 <= column:
                start += 1
                continue
            end = start
            widest = 0
            while end < len(lines) and len(lines[end]) - 1 > column:
                widest = max(widest, width(lines[end][column]))
                end += 1
            for index in range(start, end):
                widths[index][column] = max(widest + _GAP, narrowest)
            start = end
    for index, line in enumerate(lines):
        cells = [cell + " " * (widths[index][column] - width(cell)) for column, cell in enumerate(line[:-1])]
        text.append("".join(cells) + (line[-1] if line else ""))
    if text:
        out("\n".join(text) + "\n")


def filters(given: Sequence[str]) -> dict[str, dict[str, bool]]:
    """`--filter` occurrences as the API takes them."""
    result: dict[str, dict[str, bool]] = {}
    for one in filter(None, given):  # docker lets an empty one pass
        name, _, value = one.partition("=")
        result.setdefault(name.strip().lower(), {})[value.strip()] = True
    return result
