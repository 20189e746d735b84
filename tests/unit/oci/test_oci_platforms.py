"""Platforms: their spellings, and which image runs where."""

from __future__ import annotations

import pytest

from sampan.errors import InvalidParameter
from sampan.oci.image import Platform
from sampan.oci.platforms import from_json, from_text, satisfies, shown


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("Linux/ARM", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/arm/5", "linux/arm/v5"),
        ("linux/i386", "linux/386"),
    ],
)
def test_spellings(text: str, platform: str) -> None:
    assert shown(from_text(text)) == platform


@pytest.mark.parametrize("text", ["", "linux/", "/amd64", "a/b/c/d"])
def test_no_platform(text: str) -> None:
    with pytest.raises(InvalidParameter):
        from_text(text)


def test_json() -> None:
    assert from_json('{"os":"linux","architecture":"arm","variant":"v6"}') == Platform("linux", "arm", "v6")
    for text in ("linux/amd64", "[]", "{}", '{"os": "linux"}', '{"os": 1, "architecture": "x"}', "[" * 9999):
        with pytest.raises(InvalidParameter):
            from_json(text)


@pytest.mark.parametrize(
    ("image", "wanted", "fits"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/386", "linux/amd64", True),
        ("linux/amd64", "linux/386", False),
        ("linux/amd64/v3", "linux/amd64", False),
        ("linux/arm/v6", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/arm/v7", "linux/arm64", True),
        ("linux/arm64", "linux/arm/v7", False),
        ("windows/amd64", "linux/amd64", False),
    ],
)
def test_what_runs_where(image: str, wanted: str, fits: bool) -> None:
    assert satisfies(from_text(image), from_text(wanted)) is fits


def test_a_config_without_its_variant_fits_any() -> None:
    assert satisfies(Platform("linux", "arm"), from_text("linux/arm/v5"))
