"""Dockerfiles of people who wish the daemon ill: each is refused in a line, and soon."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import pytest

from sampan.dockerfile import Settings, Words, copied, needed, parse, read, split
from sampan.dockerfile.ignoring import path_expression
from sampan.dockerfile.parsing import LIMIT_BYTES
from sampan.errors import InvalidParameter
from sampan.oci.image import ImageConfig

PROCESSOR_S = 5.0  # thousands of times what each needs


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    """Whatever takes long, matching included, ends in an error."""

    def late(_number: int, _frame: FrameType | None) -> NoReturn:
        raise TimeoutError("this took long")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, PROCESSOR_S)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


def test_a_flags_quote_without_an_end() -> None:
    for quote in "'\"":
        run = read(f"RUN --mount={quote}" + "\\a" * 1000 + " x")
        assert run.lists == {}
        assert run.rest.startswith("--mount=")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"HEALTHCHECK --interval={'1' * 200_000} CMD x", "invalid duration for --interval"),
        (f"HEALTHCHECK --interval={'1' * 50}h CMD x", "invalid duration for --interval"),
        ("HEALTHCHECK --timeout=999us CMD x", 'Interval "timeout" cannot be less than 1ms'),
        (f"HEALTHCHECK --retries={'1' * 5000} CMD x", "invalid value for --retries"),
        ("HEALTHCHECK --retries=\N{SUPERSCRIPT TWO} CMD x", "invalid value for --retries"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("ONBUILD " * 5000 + "RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("VOLUME []", "VOLUME requires at least one argument"),
        ("RUN a\0b", "a NUL character"),
        (f"RUN --mount=type=cache,target=/c,uid={'1' * 5000} x", "invalid value 1+ for uid"),
        (f"RUN --mount=type=tmpfs,target=/c,size={'9' * 308}g x", "invalid value for size"),
    ],
)
def test_numbers_and_forms(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=f"on line 2: .*{message}|on line 2: {message}"):
        _, (stage,) = split(parse(f"FROM a\n{text}"))
        for one in stage.instructions:
            Settings.check(one, "\\")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"EXPOSE {'8' * 5000}", "invalid containerPort: 8"),
        (f"STOPSIGNAL {'8' * 5000}", "Invalid signal: 8"),
        ("STOPSIGNAL \N{SUPERSCRIPT TWO}", "Invalid signal"),
    ],
)
def test_numbers_of_settings(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        Settings(ImageConfig()).apply(read(text), {})


def test_words_that_a_trigger_lacks() -> None:
    for text in ("COPY []", "ADD a"):
        with pytest.raises(InvalidParameter, match="requires at least two arguments"):
            copied(read(text), Words({}))


def test_a_stage_that_only_thousands_of_digits_name() -> None:
    _, stages = split(parse(f"FROM a\nCOPY --from={'1' * 5000} a b"))
    assert needed(stages, "", ["a"]) == [0]
    with pytest.raises(InvalidParameter, match="could not be found"):
        needed(stages, "1" * 5000, ["a"])


@pytest.mark.parametrize(
    "text",
    [
        "$a" * 21,
        "${b:-$a$a$a$a$a$a$a$a$a$a$a}" + "$a" * 11,
        '"' + "$a" * 21 + '"',
        "${short//?/$a}",
    ],
)
def test_variables_that_grow(text: str) -> None:
    """`ENV a=$a$a` forty times is all the memory that there is."""
    words = Words({"a": "x" * 100_000, "short": "y" * 100})
    assert len(words.one("$a" * 20)) == 2_000_000
    with pytest.raises(InvalidParameter, match=f"a word of more than {LIMIT_BYTES} characters"):
        words.one(text)


def test_patterns_of_long_values() -> None:
    assert Words({"a": "x" * 8000}).one("${a//*y/}") == "x" * 8000
    for text in ("${a//*y/}", "${a%%*x*y*}", "${a#*z}"):
        with pytest.raises(InvalidParameter, match="a: more than 8192 characters for a pattern"):
            Words({"a": "x" * 9000}).one(text)


def test_a_long_word_in_quotes() -> None:
    assert len(Words({}).one('"' + "x" * 400_000 + '"')) == 400_000


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*a" * 30 + "b", "a" * 255, False),
        ("*a" * 30, "a" * 255, True),
        ("**/a/" * 30 + "b", "a/" * 2000, False),
        ("**/*a*a/" * 20 + "b", "a/" * 2000, False),
        ("*a*a*a*a**a*a*a*b", "/".join(["a" * 200] * 20), False),
        ("**/" * 500 + "x", "a/" * 2000, False),
        ("a*b**c", "aab/d/c", True),  # the first b that fits
        ("*b**/c", "abbc", True),  # not the first b
        ("**/a/**/b*/c", "a/x/a/bx/by/c", True),
    ],
)
def test_wildcards_that_fit_in_many_ways(pattern: str, path: str, fits: bool) -> None:
    assert bool(path_expression(pattern).fullmatch(path)) is fits


def test_wildcards_that_cannot_be_told_soon() -> None:
    with pytest.raises(InvalidParameter, match=r"a pattern has several \*\* within names: \*a"):
        path_expression("*a**" * 5 + "b")
