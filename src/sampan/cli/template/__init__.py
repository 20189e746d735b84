"""Go's text/template, as far as `--format` reaches: parse once, render for each object."""

from __future__ import annotations

from sampan.cli.template.errors import TemplateError
from sampan.cli.template.output import (
    Row,
    inspect_template,
    listing_template,
    lists_template,
    object_template,
)

__all__ = [
    "Row",
    "TemplateError",
    "inspect_template",
    "listing_template",
    "lists_template",
    "object_template",
]
