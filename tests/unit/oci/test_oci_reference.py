"""Names of images, as people write them and in full."""

from __future__ import annotations

import pytest

from sampan.oci.reference import InvalidReference, parse

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/busybox:1", "docker.io/library/busybox:1", "busybox:1"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("me/app:v1.2_x-3", "docker.io/me/app:v1.2_x-3", "me/app:v1.2_x-3"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/a/b:t", "localhost:5000/a/b:t", "localhost:5000/a/b:t"),
        ("[fe80::1]:5000/a", "[fe80::1]:5000/a:latest", "[fe80::1]:5000/a:latest"),
        ("Registry/app", "Registry/app:latest", "Registry/app:latest"),
        (f"a@sha256:{HEX}", f"docker.io/library/a@sha256:{HEX}", f"a@sha256:{HEX}"),
        (f"a:1@sha256:{HEX}", f"docker.io/library/a:1@sha256:{HEX}", f"a:1@sha256:{HEX}"),
        ("a__b/c--d/e.f", "docker.io/a__b/c--d/e.f:latest", "a__b/c--d/e.f:latest"),
    ],
)
def test_reads_names(text: str, full: str, familiar: str) -> None:
    reference = parse(text).with_default_tag()
    assert (str(reference), reference.familiar) == (full, familiar)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "a:",
        "a b",
        "-a",
        "a/",
        "/a",
        "a//b",
        "a:b:c",
        "a@sha256:12",
        "a_._b",
        "a:-x",
        "a\n",
        "http://x/y",
    ],
)
def test_refuses_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidReference, match="invalid reference format"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
        ("quay.io/Up/x:Tag", "invalid reference format: repository name (Up/x) must be lowercase"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        ("a/" * 130 + "a", "repository name must not be more than 255 characters"),
    ],
)
def test_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse(text)
    assert caught.value.message == message
