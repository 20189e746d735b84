"""What `--format` prints: rows of a list, tables of a template, inspected objects."""

from __future__ import annotations

from sampan.cli.app import out
from sampan.cli.failures import CommandError
from sampan.cli.template.errors import TemplateError, UnknownField
from sampan.cli.template.evaluator import Evaluator
from sampan.cli.template.functions import FUNCTIONS, HEADER_FUNCTIONS
from sampan.cli.template.parser import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from sampan.cli.listing import Field


class Row:
    """One object of a list, asked by the names of its columns."""

    __slots__ = ("fields", "row", "type_name")

    def __init__(self, row: Any, fields: dict[str, Field], type_name: str) -> None:
        self.row = row
        self.fields = fields
        self.type_name = type_name

    def get(self, name: str) -> Any:
        """The value of a column."""
        field = self.fields.get(name)
        if field is None:
            raise UnknownField(f"can't evaluate field {name} in type {self.type_name}")
        return field.value(self.row)

    def __str__(self) -> str:
        return self.as_text()

    def as_text(self) -> str:
        """All columns as one line of JSON, as Go escapes it."""
        from sampan.cli.jsontext import dump, html_safe

        return html_safe(dump({name: self.get(name) for name in sorted(self.fields)}))


def _row_field(value: Any, name: str) -> Any:
    if isinstance(value, Row):
        return value.get(name)
    from sampan.cli.template.values import type_name

    raise UnknownField(f"can't evaluate field {name} in type {type_name(value)}")


def listing_template(
    form: str, rows: Iterable[Any], fields: dict[str, Field], type_name: str, parsing: str
) -> None:
    """Print a list by a template; `table TEMPLATE` gives it a header and columns."""
    if form == "json":
        for row in rows:
            out(Row(row, fields, type_name).as_text() + "\n")
        return
    tabular = form.startswith("table")
    source = (form[len("table") :] if tabular else form).strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    try:
        nodes = Parser(source, FUNCTIONS).parse()
    except TemplateError as error:
        raise CommandError(
            f"{parsing if 'error' in parsing else 'failed to parse template'}: {error}"
        ) from None
    evaluator = Evaluator(nodes, FUNCTIONS, _row_field)
    lines = []
    try:
        if tabular:
            titles = {name: field.header for name, field in fields.items()}
            header = Evaluator(nodes, HEADER_FUNCTIONS, _row_field).render(_Titles(titles, type_name))
        for row in rows:
            lines.append(evaluator.render(Row(row, fields, type_name)))
    except TemplateError as error:
        raise CommandError(
            f"{parsing if 'error' in parsing else 'failed to execute template'}: {error}"
        ) from None
    if not tabular:
        for line in lines:
            out(line + "\n")
        return
    from sampan.cli.listing import align

    align([cells.split("\t") for text in (header, *lines) for cells in text.split("\n")])


class _Titles(Row):
    """The header row: every column is its title."""

    __slots__ = ()

    def __init__(self, titles: dict[str, str], type_name: str) -> None:
        super().__init__(titles, {}, type_name)

    def get(self, name: str) -> Any:
        if name not in self.row:
            raise UnknownField(f"can't evaluate field {name} in type {self.type_name}")
        return self.row[name]


def inspect_template(form: str, type_name: str = "") -> Callable[[Any], str]:
    """A renderer of inspected objects.

    Args:
        type_name: how Go calls an object whose members are a struct's.

    Raises:
        CommandError: the template cannot be parsed (now) or rendered (then).
    """
    try:
        evaluator = Evaluator(Parser(form, FUNCTIONS).parse(), FUNCTIONS, type_name=type_name)
    except TemplateError as error:
        raise CommandError(f"template parsing error: {error}", 64) from None

    def render(value: Any) -> str:
        try:
            return evaluator.render(value)
        except TemplateError as error:
            raise CommandError(f"template parsing error: {error}") from None

    return render


def object_template(form: str, value: Any) -> None:
    """Print one object by a template (`version`, `info`, `events`)."""
    if form == "json":
        from sampan.cli.jsontext import dump

        out(dump(value) + "\n")
        return
    out(inspect_template(form)(value) + "\n")
