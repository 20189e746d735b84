"""What `--format` prints: rows of a list, tables of a template, inspected objects."""

from __future__ import annotations

from sampan.cli.app import out
from sampan.cli.failures import CommandError
from sampan.cli.template.errors import TemplateError, UnknownField
from sampan.cli.template.evaluator import Evaluator
from sampan.cli.template.functions import FUNCTIONS, HEADER_FUNCTIONS
from sampan.cli.template.parser import Parser
from sampan.cli.template.typed import decode

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
        if field is None or field.argument:
            raise UnknownField(f"can't evaluate field {name} in type {self.type_name}")
        return field.value(self.row)

    @property
    def methods(self) -> dict[str, Callable[[Any], Any]]:
        """What takes an argument, such as `.Label "name"`."""
        return {
            name: lambda argument, field=field: field.value(self.row, argument)  # type: ignore[misc]
            for name, field in self.fields.items()
            if field.argument
        }

    def __str__(self) -> str:
        return self.as_text()

    def as_text(self) -> str:
        """All columns as one line of JSON, as Go escapes it."""
        from sampan.cli.jsontext import dump, html_safe

        fields = sorted((name, field) for name, field in self.fields.items() if not field.argument)
        return html_safe(dump({name: field.in_json(self.row) for name, field in fields}))


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
    if not parsing:
        _try(form, fields, type_name)
    tabular = form.startswith("table")
    source = (form[len("table") :] if tabular else form).strip(" ").replace("\\t", "\t").replace("\\n", "\n")
    try:
        parser = Parser(source, FUNCTIONS)
        nodes = parser.parse()
    except TemplateError as error:
        raise CommandError(f"{parsing or 'failed to parse template'}: {error}") from None
    evaluator = Evaluator(nodes, FUNCTIONS, _row_field, templates=parser.templates)
    lines = []
    try:
        if tabular:
            titles = Evaluator(nodes, HEADER_FUNCTIONS, _row_field, templates=parser.templates)
            try:
                header = titles.render(_Titles(fields, type_name))
            except UnknownField:
                raise
            except TemplateError:
                header = titles.partial  # a list of titles is none; the rows tell what is really wrong
        for row in rows:
            lines.append(evaluator.render(Row(row, fields, type_name)))
    except TemplateError as error:
        raise CommandError(f"{parsing or 'failed to execute template'}: {error}") from None
    if not tabular:
        for line in lines:
            out(line + "\n")
        return
    from sampan.cli.listing import align

    align([cells.split("\t") for text in (header, *lines) for cells in text.split("\n")])


def _try(form: str, fields: dict[str, Field], type_name: str) -> None:
    """What docker's ps does first, to see whether sizes are asked for: the whole text is a template to it."""
    try:
        parser = Parser(form, FUNCTIONS)
        nodes = parser.parse()
        Evaluator(nodes, FUNCTIONS, _row_field, templates=parser.templates).render(_Titles(fields, type_name))
    except TemplateError as error:
        if "can't evaluate field" in str(error):  # of all else the rows tell what is really wrong
            raise CommandError(f"failed to execute template: {error}") from None


class _Titles(Row):
    """The header row: every column is its title."""

    __slots__ = ()

    def __init__(self, fields: dict[str, Field], type_name: str) -> None:
        super().__init__(None, fields, type_name)

    def get(self, name: str) -> Any:
        if name not in self.fields:
            raise UnknownField(f"can't evaluate field {name} in type {self.type_name}")
        return self.fields[name].header

    @property
    def methods(self) -> dict[str, Callable[[Any], Any]]:
        """The last word of a label's name is its title."""
        return {name: _label_title for name, field in self.fields.items() if field.argument}


def _label_title(name: str) -> str:
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def inspect_template(
    form: str, raw: bool = True, failure: str = "template parsing error"
) -> Callable[[Any, str], str]:
    """A renderer of inspected objects: `render(value, kind)`, where `kind` is a struct of `shapes`.

    As docker does it: the object as the type that its client decodes it to, by Go's names; where that fails,
    the plain JSON by the API's names, and what is wrong with that is told.

    Args:
        raw: there is JSON of the daemon's behind the object.
        failure: how an error is introduced.

    Raises:
        CommandError: the template cannot be parsed (now) or rendered (then).
    """
    try:
        parser = Parser(form, FUNCTIONS)
        nodes = parser.parse()
    except TemplateError as error:
        raise CommandError(f"{failure}: {error}", 64) from None
    typed = Evaluator(nodes, FUNCTIONS, strict=False, templates=parser.templates)
    plain = Evaluator(nodes, FUNCTIONS, templates=parser.templates)

    def render(value: Any, kind: str) -> str:
        try:
            if kind:
                try:
                    return typed.render(decode(kind, value))
                except TemplateError:
                    if not raw:
                        raise
            return plain.render(value)
        except TemplateError as error:
            raise CommandError(f"{failure}: {error}", None if raw or kind == "context" else 64) from None

    return render


def object_template(form: str, value: Any, kind: str, name: str = "") -> None:
    """Print one object of the client's own by a template (`version`, `info`).

    Args:
        kind: the struct of `shapes` that it is.
        name: of the template, as errors tell it.
    """
    found = decode(kind, value)
    if form == "json":
        form = "{{json .}}"
    try:
        parser = Parser(form, FUNCTIONS, name)
        evaluator = Evaluator(parser.parse(), FUNCTIONS, strict=False, templates=parser.templates, name=name)
    except TemplateError as error:
        raise CommandError(f"template parsing error: {error}", 64) from None
    try:
        out(evaluator.render(found) + "\n")
    except TemplateError as error:
        out(evaluator.partial + "\n")
        raise CommandError(str(error)) from None


class _Lists(Row):
    """Lists of rows by their names."""

    __slots__ = ()

    def __init__(self, lists: dict[str, list[Row]], type_name: str) -> None:
        super().__init__(lists, {}, type_name)

    def get(self, name: str) -> Any:
        """One of the lists."""
        if name not in self.row:
            raise UnknownField(f"can't evaluate field {name} in type {self.type_name}")
        return self.row[name]

    def as_text(self) -> str:
        """All lists as one line of JSON."""
        from sampan.cli.jsontext import dump

        return dump(self.row)


def lists_template(form: str, lists: dict[str, list[Row]], type_name: str) -> None:
    """Print lists of rows by one template (`system df --verbose`)."""
    form = form.removeprefix("table").strip(" ")
    try:
        parser = Parser("{{json .}}" if form == "json" else form, FUNCTIONS)
        evaluator = Evaluator(parser.parse(), FUNCTIONS, _row_field, templates=parser.templates)
    except TemplateError as error:
        raise CommandError(f"template parsing error: {error}") from None
    try:
        out(evaluator.render(_Lists(lists, type_name)))
    except TemplateError as error:
        out(evaluator.partial)
        raise CommandError(str(error)) from None
