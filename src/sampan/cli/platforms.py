"""`--platform` as the API wants it: an OCI platform as JSON."""

from __future__ import annotations

from sampan.cli.failures import CommandError


def as_json(text: str) -> str:
    """The JSON of `os[/arch[/variant]]`.

    Raises:
        CommandError: it is no platform.
    """
    from sampan.errors import InvalidParameter
    from sampan.oci.image import encode_platform, to_json
    from sampan.oci.platforms import from_text

    try:
        return to_json(encode_platform(from_text(text))).decode()
    except InvalidParameter as error:
        raise CommandError(f"invalid platform: {error.message}") from None


def query(text: str) -> dict[str, str]:
    """The query parameter `platform`; nothing when the flag was not given."""
    return {"platform": as_json(text)} if text else {}
