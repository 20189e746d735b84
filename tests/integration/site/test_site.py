"""The documentation as a site: it builds strictly, hangs together, needs no network, shows what is there."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

from sampan.cli.app import GLOBAL_FLAGS, find
from sampan.cli.failures import CommandError
from sampan.cli.flags import HelpWanted, Problem, check_count, parse
from sampan.cli.tree import GROUPS
from sampan.daemon.options import UsageError, parse_flags
from support import pages

TOOLS = pages.ROOT / "tools"
PAGE_OF_PLUGIN = ("compose", "buildx")  # commands of docker's plugins


def names() -> list[str]:
    """Every page of the site."""
    site = pages.site()
    return sorted(path.relative_to(site).with_suffix("").as_posix() for path in site.rglob("*.html"))


def tool(name: str) -> ModuleType:
    """A program of tools/ as a module."""
    sys.path.insert(0, str(TOOLS))
    try:
        spec = importlib.util.spec_from_file_location(f"tool_{name}", TOOLS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(TOOLS))


def test_every_link_leads_somewhere() -> None:
    site, wrong = pages.site(), []
    for name in names():
        for link in pages.page(name).links:
            parts = urlsplit(link)
            if parts.scheme or link == "#":
                continue
            target = (site / name).parent / unquote(parts.path) if parts.path else site / f"{name}.html"
            if not target.is_file():
                wrong.append(f"{name}: {link}")
            elif parts.fragment and target.suffix == ".html":
                other = target.resolve().relative_to(site.resolve()).with_suffix("").as_posix()
                if unquote(parts.fragment) not in pages.page(other).anchors:
                    wrong.append(f"{name}: {link}")
    assert not wrong


def test_nothing_is_fetched_from_elsewhere() -> None:
    for name in names():
        assert not [place for place in pages.page(name).loaded if urlsplit(place).netloc], name
    for style in pages.site().rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", style.read_text()), style


def test_the_menu_leads_to_every_page_of_the_folder() -> None:
    menu = {urlsplit(link).path for link in pages.page("index").links}
    for source in (pages.ROOT / "docs").rglob("*.md"):
        page = source.relative_to(pages.ROOT / "docs").with_suffix(".html").as_posix()
        assert page == "index.html" or page in menu
    assert {"reference/commands.html", "reference/sampand.html", "reference/events.html"} <= menu


def test_a_broken_page_fails_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its mistakes is named, and the site that was there before stays."""
    site = tool("site")
    docs = tmp_path / "docs"
    (docs / "_static").mkdir(parents=True)
    settings = (pages.ROOT / "docs" / "conf.py").read_text()
    settings += 'html_theme, html_theme_options = "basic", {}\n'  # quicker
    (docs / "conf.py").write_text(settings)
    (docs / "index.md").write_text("# Here\n\n[other](other.md#other)\n")
    (docs / "other.md").write_text("# Other\n")
    monkeypatch.setattr(site, "ROOT", tmp_path)
    monkeypatch.setattr(site, "OUTSIDE", {})
    monkeypatch.setattr(site, "generated", dict)
    (tmp_path / "src").symlink_to(pages.ROOT / "src")
    site.build(tmp_path / "out")
    there = (tmp_path / "out" / "other.html").read_text()
    mistakes = (
        "[there](no-page.md)",
        "[there](other.md#no-anchor)",
        "[there](#no-place)",
        "```{toctree}\nno-entry\n```",
    )
    (docs / "index.md").write_text("\n\n".join(["# Here", "[other](other.md#other)", *mistakes]) + "\n")
    (docs / "other.md").write_text("# Another\n")
    with pytest.raises(site.SiteError) as caught:
        site.build(tmp_path / "out")
    said = [line for line in str(caught.value).splitlines() if "WARNING" in line]
    for name in ("no-page", "no-anchor", "no-place", "no-entry"):
        assert [line for line in said if name in line], (name, said)
    assert (tmp_path / "out" / "other.html").read_text() == there


def test_text_is_shown_as_it_is_meant() -> None:
    """Options keep their dashes, Chinese lines join without a blank, pages are called by their titles."""
    assert "implied by --tlsverify" in (pages.site() / "reference/commands.html").read_text()
    chinese = (pages.site() / "tutorial/zh.html").read_text()
    paragraphs = [re.sub(r"<[^>]+>", "", one) for one in re.findall(r"<p>(.*?)</p>", chinese, re.DOTALL)]
    assert len(paragraphs) > 40
    assert not [one for one in paragraphs if re.search(r"[\u4e00-\u9fff，。；]\n *[\u4e00-\u9fff]", one)]
    for name in names():
        assert not re.search(
            r"<a [^>]*><span [^>]*>[\w-]+\.md</span>", (pages.site() / f"{name}.html").read_text()
        )


def test_the_search_finds_both_languages() -> None:
    """What searches does so in the browser, in an index that lies beside the pages."""
    text = (pages.site() / "searchindex.js").read_text()
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    for word, page in (("egress", "egress"), ("网桥", "tutorial/zh"), ("命名", "tutorial/zh")):
        found = index["terms"][word]
        places = found if isinstance(found, list) else [found]
        assert page in [index["docnames"][place] for place in places]


def test_the_reference_has_every_command_and_flag() -> None:
    shown = "".join(
        (pages.site() / "reference" / f"{name}.html").read_text() for name in ("commands", "sampand")
    )
    for text in ("sampan container ls", "--health-on-failure", "--metrics-addr", "default-address-pools"):
        assert text in shown
    for name, command in tool("manual").commands():
        assert f"sampan-{name.replace(' ', '-')}" in pages.page("reference/commands").anchors
        assert all(f"--{flag.name}" in shown for flag in command.flags or () if not flag.hidden)


@pytest.fixture(scope="module")
def code_tools() -> Iterator[tuple[ModuleType, ModuleType]]:
    """`reference` and `messages`, which share what they have read of the code: a million objects."""
    reference, messages = tool("reference"), sys.modules["messages"]
    yield reference, messages
    messages.modules.cache_clear()


def test_events_that_are_not_described_fail_the_build(
    code_tools: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, _ = code_tools
    assert "`exec_die`" in reference.events()
    monkeypatch.delitem(reference.EVENTS["container"], "exec_die")
    with pytest.raises(reference.Stale, match="exec_die"):
        reference.events()
    monkeypatch.setitem(reference.EVENTS["network"], "sunk", "it went down")
    with pytest.raises(reference.Stale, match="sunk"):
        reference.events()


def test_error_messages_have_their_status(code_tools: tuple[ModuleType, ModuleType]) -> None:
    """A few that every reader of Docker's knows, of three kinds of places where errors are raised."""
    _, messages = code_tools
    found = {(status, text) for _, status, text in messages.messages()}
    assert len(found) > 900
    assert (404, "No such container: …") in found
    assert (409, "remove …: volume is in use - […]") in found
    assert (400, "invalid filter '…'") in found
    assert (0, "flag needs an argument: --…") in found


def shown_blocks() -> Iterator[tuple[str, str]]:
    """Each block that may have commands, with its page; those of the README too."""
    for name in names():
        if not name.startswith("reference/"):  # usage lines
            for block in pages.page(name).blocks:
                if block.language not in ("python", "python3", "json", "ini", "toml", "yaml", "text"):
                    yield name, block.text
    readme = re.sub(
        r"^```.*?^```", "", (pages.ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL
    )
    for found in re.findall(r"(?:^    .*\n)+", readme, re.MULTILINE):
        yield "README", found


def typed() -> Iterator[tuple[str, list[str]]]:
    """Each command line of ours that a page shows in a block of code, and the page."""
    for name, text in shown_blocks():
        for line in text.replace("\\\n", " ").split("\n"):
            words = _words(line)
            if words:
                yield name, words


def _words(line: str) -> list[str]:
    """The words of a command of ours, without what a shell does with it; nothing for any other line."""
    found = re.match(r"\s*(?:[$#] )?(?:sudo )?(?:\./|\.venv/bin/)?(sampand?|docker) (.*)", line)
    if found is None:
        return []
    text = re.sub(r"\[(-[^\]]*)\]", r"\1", found[2])  # optional flags are flags
    text = re.sub(r"\[[a-zA-Z. ]*\]", "", text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    words = [found[1]]
    try:
        for word in lexer:
            if set(word) <= set("|&;<>()"):
                if words[-1].isdigit() and word.startswith(">"):
                    words.pop()  # the descriptor that is redirected
                break
            words.append(word)
    except ValueError:  # the rest of a quoted text is on further lines
        return []
    return words


def _mistake(program: str, words: list[str]) -> str:
    """What is wrong with a command line; nothing where it would be done."""
    if words[:1] == ["daemon"]:
        program, words = "sampand", words[1:]
    if program == "sampand":
        try:
            parse_flags(words)
        except UsageError as error:
            return error.message
        return ""
    try:
        _, rest = parse(GLOBAL_FLAGS, words, interspersed=False)
        if not rest or rest[0] in PAGE_OF_PLUGIN or rest[0].isupper():
            return ""
        command, path, arguments = find(rest)
        if command is None:
            assert rest[0] in GROUPS
            return "" if not arguments or arguments[0].isupper() else f"no command {arguments[0]}"
        if command.flags is None:
            return ""
        values, others = parse(command.flags, arguments, command.interspersed)
        check_count(command, path, len(others))
        del values
    except HelpWanted:
        return ""
    except (Problem, CommandError) as problem:
        return str(problem).partition("\n")[0] or getattr(problem, "message", "")
    return ""


def test_commands_on_pages_are_there() -> None:
    """Our parser takes every command line that a page shows, with its flags and number of arguments."""
    shown = list(typed())
    assert len(shown) > 200
    wrong = [
        f"{name}: {shlex.join(words)}: {mistake}"
        for name, words in shown
        if (mistake := _mistake(words[0], words[1:]))
    ]
    assert not wrong, "\n".join(wrong)
