"""Finds every message of an error in the code, and writes the reference page of them.

A message is what an error of ours is raised with, as the source has it, `…` where a value is filled in.

    .venv/bin/python tools/messages.py         # the page
"""

from __future__ import annotations

import ast
import functools
import gc
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src" / "sampan"

STATUS = {
    304: "already so", 400: "the request is wrong", 401: "credentials", 403: "refused", 404: "not there",
    409: "something stands in the way", 500: "failed", 501: "not offered", 503: "not now",
}  # fmt: skip
PARTS = {
    "api": "API and requests", "client": "Python client", "cli": "Command line", "daemon": "Daemon",
    "engine": "Containers", "images": "Images", "network": "Networks", "volumes": "Volumes", "http": "HTTP",
    "oci": "Names, sizes and the OCI's documents", "registry": "Registries", "resolver": "Name resolver",
    "runtime": "Starting and ending processes", "storage": "Layers and storage drivers", "linux": "Kernel",
    "logdrivers": "Log drivers",
}  # fmt: skip
HEAD = """\
# Error messages

The messages of Sampan's own errors, as the code has them; `…` stands for a name, a number or the kernel's
words. Those that are put together of parts while Sampan runs are not here. What helps against the more
frequent ones: [When something does not work](../troubleshooting.md). The number is the status in the API
(`{"message": …}`); the command line shows the same text after `Error response from daemon:`, and ends with 1,
or with 125 where a container was to be run. Its own messages have no status.
Written by `tools/messages.py`.

| status | meaning |
|---|---|"""
ROOTS = {"SampanError": 500, "CommandError": 0, "Problem": 0}  # the command line's own have no status
SKIPPED = ("cli/template", "cli/ui", "doctor")  # Go's own words; shown on the spot


def messages() -> Iterator[tuple[str, int, str]]:
    """Part, API status (0 without one) and text of each error message, `…` where it has a value."""
    trees = [(path, nodes) for path, nodes in modules() if not _relative(path).startswith(SKIPPED)]
    statuses = _statuses([node for _, nodes in trees for node in nodes])
    for path, nodes in trees:
        makers = {
            node.name: node.returns.id
            for node in nodes
            if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name)
        }
        part = _relative(path).partition("/")[0].removesuffix(".py")
        for node in nodes:
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                call = node.exc
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
                call = node.value
            else:
                continue
            name = dotted(call.func).rpartition(".")[2]
            name = makers.get(name, name)
            if part == "cli" and name == "ValueError":  # of a flag's value
                name = "CommandError"
            text = text_of(call.args[0]) if call.args else None
            if name in statuses and text is not None and _telling(text):
                yield part, statuses[name], text
        for cls in (node for node in nodes if isinstance(node, ast.ClassDef) and node.name in statuses):
            for call in (node for node in ast.walk(cls) if isinstance(node, ast.Call)):
                if dotted(call.func) == "().__init__" and call.args:
                    text = text_of(call.args[0])
                    if text is not None and _telling(text):
                        yield part, statuses[cls.name], text


def page() -> str:
    """Every message of an error, by the part that it comes from."""
    by_part: dict[str, set[tuple[int, str]]] = defaultdict(set)
    for part, status, text in messages():
        by_part[part].add((status, text))
    lines = [HEAD, *(f"| {status} | {text} |" for status, text in STATUS.items())]
    for part in sorted(by_part, key=lambda one: PARTS.get(one, one)):
        lines += ["", f"## {PARTS.get(part, part.capitalize())}", "", "| message | status |", "|---|---|"]
        for status, text in sorted(by_part[part], key=lambda one: (one[1].lstrip("…'\"` ").lower(), one)):
            lines.append(f"| {_code(text)} | {status or ''} |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    space = " " if fence == "``" else ""
    return f"{fence}{space}{' '.join(text.split()).replace('|', chr(92) + '|')}{space}{fence}"


def _telling(text: str) -> bool:
    """Whether a message has words of its own."""
    return len(re.sub(r"[^A-Za-z]", "", text)) > 3


def _statuses(nodes: list[ast.AST]) -> dict[str, int]:
    """The status of each class of errors: its own, or that of the class it is made of."""
    own = dict(ROOTS)
    bases: dict[str, list[str]] = {}
    for cls in (node for node in nodes if isinstance(node, ast.ClassDef)):
        bases[cls.name] = [dotted(base).rpartition(".")[2] for base in cls.bases]
        for line in cls.body:
            if isinstance(line, ast.Assign) and dotted(line.targets[0]) == "status":
                value = line.value.value if isinstance(line.value, ast.Constant) else None
                if isinstance(value, int):
                    own[cls.name] = value
    return {name: status for name in bases if (status := _inherited(name, own, bases, 0)) is not None}


def _inherited(name: str, own: dict[str, int], bases: dict[str, list[str]], depth: int) -> int | None:
    """The status of a class, or None when it is no error of ours."""
    if name in ROOTS:
        return own[name]
    for base in bases.get(name, ()) if depth < 9 else ():
        status = _inherited(base, own, bases, depth + 1)
        if status is not None:
            return own.get(name, status)
    return None


def text_of(node: ast.expr) -> str | None:
    """The text of an expression that is a string, `…` for what is filled in; None for any other."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = [one.value if isinstance(one, ast.Constant) else "…" for one in node.values]
        return "".join(str(part) for part in parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        return None if left is None and right is None else f"{left or '…'}{right or '…'}"
    return None


def dotted(node: ast.expr) -> str:
    """A name with its attributes, `()` for what is computed before them."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "()"


def _relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@functools.cache
def modules() -> list[tuple[Path, list[ast.AST]]]:
    """Each module of ours with all nodes of its syntax tree."""
    gc.disable()  # each search for garbage would go through all these nodes
    try:
        return [(path, list(ast.walk(ast.parse(path.read_text())))) for path in sorted(SOURCE.rglob("*.py"))]
    finally:
        gc.enable()


if __name__ == "__main__":
    sys.stdout.write(page())
