"""Builds the documentation as a site of static pages, which need neither a server nor a network.

    python3 tools/site.py [FOLDER]        # dist/site; open its index.html

Strictly: a link or an anchor that leads nowhere, or a page that no menu leads to, fails the build. The pages
are those of docs/, two others of the checkout, and the reference, which tools/manual.py, tools/reference.py
and tools/messages.py make of the code each time, so that it cannot be out of date. The generator is Sphinx,
with MyST for Markdown and the theme Furo; the environment of the tests has them, and is made when missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "src")]

import environment  # noqa: E402  (it lives beside this file)

# Pages that lie outside of docs/, and what they are called in the site.
OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "bench/README.md": "measuring.md"}
# The menu. A page of docs/ that is not named here stands at the end of the guides.
GUIDES = "Guides"
MENU: dict[str, tuple[str, ...]] = {
    "First steps": ("installation", "tutorial/en", "tutorial/zh", "moving-from-docker", "troubleshooting"),
    GUIDES: (
        "command-line", "daemon", "networks", "firewall", "volumes", "storage", "logging", "registry",
        "building", "sandboxes", "egress", "without-root", "python",
    ),
    "Reference": (
        "reference/commands", "reference/sampand", "reference/events", "reference/errors", "compatibility",
    ),
    "Inside": ("architecture", "performance", "measuring", "dependencies", "contributing"),
}  # fmt: skip


class SiteError(Exception):
    """What is wrong with the pages, as Sphinx says it."""


def relinked(text: str, at: str) -> str:
    """A page's text, with links to other places of the checkout leading to pages of the site.

    Args:
        at: the page's path in the checkout.
    """
    here = Path(at).parent

    def target(found: re.Match[str]) -> str:
        path, hash_, anchor = found[1].partition("#")
        if not path or ":" in path:
            return found[0]
        place = os.path.normpath(here / path)
        return f"]({os.path.relpath(in_site(place), Path(in_site(at)).parent)}{hash_}{anchor})"

    # A page that is named by its file is named by its title on the site: an empty text is that.
    titled = re.sub(r"\[[\w-]+\.md\](?=\([\w/-]+\.md(?:#[\w-]+)?\))", "[]", text)
    return re.sub(r"\]\(([^)\s]+)\)", target, titled)


def in_site(path: str) -> str:
    """Where a file of the checkout is in the site."""
    return OUTSIDE.get(path, path.removeprefix("docs/"))


def generated() -> dict[str, str]:
    """The pages that are made of the code, which only the environment can import."""
    import manual
    import messages
    import reference

    return {
        "reference/commands.md": manual.markdown(),
        "reference/sampand.md": reference.sampand(),
        "reference/events.md": reference.events(),
        "reference/errors.md": messages.page(),
    }


def stage(folder: Path) -> None:
    """Put together what Sphinx reads."""
    shutil.copytree(ROOT / "docs", folder, ignore=shutil.ignore_patterns("__pycache__"))
    for page in folder.rglob("*.md"):
        page.write_text(relinked(page.read_text(), f"docs/{page.relative_to(folder)}"))
    for source, name in OUTSIDE.items():
        (folder / name).write_text(relinked((ROOT / source).read_text(), source))
    for name, text in generated().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    with (folder / "index.md").open("a") as index:
        index.write(menu({str(page.relative_to(folder))[:-3] for page in folder.rglob("*.md")}))


def menu(pages: set[str]) -> str:
    """The menu's directives, for the pages that there are."""
    others = sorted(pages - {"index"} - {name for names in MENU.values() for name in names})
    blocks = []
    for caption, names in MENU.items():
        listed = [name for name in names if name in pages] + (others if caption == GUIDES else [])
        head = ["", "```{toctree}", ":hidden:", f":caption: {caption}", ""]
        blocks.append("\n".join([*head, *listed, "```", ""]))
    return "".join(blocks)


def build(target: Path) -> None:
    """Make the site anew in `target`.

    Raises:
        SiteError: a page is wrong; what was there before stays.
    """
    with tempfile.TemporaryDirectory(prefix="sampan-site-") as scratch:
        source, made = Path(scratch, "source"), Path(scratch, "site")
        stage(source)
        command = [sys.executable, "-m", "sphinx", "-b", "html", "-q", "-W", "--keep-going", "-E", "-d"]
        done = subprocess.run(
            [*command, str(Path(scratch, "doctrees")), str(source), str(made)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1", "LC_ALL": "C.UTF-8"},
            check=False,
        )
        if done.returncode != 0:
            raise SiteError(done.stderr.replace(f"{source}/", "docs/").strip())
        for left in (".buildinfo", "objects.inv"):
            (made / left).unlink(missing_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(made, target)


def main(words: list[str]) -> int:
    """The command line above."""
    if len(words) > 1 or words[:1] in (["-h"], ["--help"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        environment.ensure(dev=True)
    except environment.SetupError as error:
        print(f"site: {error}", file=sys.stderr)
        return 1
    if Path(sys.prefix) != environment.VENV:
        os.execv(environment.PYTHON, [str(environment.PYTHON), str(Path(__file__).resolve()), *words])
    target = Path(words[0]) if words else ROOT / "dist" / "site"
    try:
        build(target)
    except SiteError as error:
        print(f"site: the pages are not in order:\n{error}", file=sys.stderr)
        return 1
    print(target / "index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
