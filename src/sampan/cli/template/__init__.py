"""Go's text/template, as far as `--format` reaches: parse once, render for each object."""

from __future__ import annotations

from sampan.cli.template.errors import TemplateError
from sampan.cli.template.output import inspect_template, listing_template, object_template

__all__ = ["TemplateError", "inspect_template", "listing_template", "object_template"]
