"""What is wrong with a template: found while parsing, or while rendering."""

from __future__ import annotations


class TemplateError(Exception):
    """A template that cannot be parsed or rendered; the text is Go's."""


class WrongType(TemplateError):
    """A function's first argument is none that it takes."""


class UnknownField(TemplateError):
    """A name that the data does not have."""
