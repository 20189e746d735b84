"""`build --secret id=NAME[,src=FILE|,env=VARIABLE]`: a header of the request, written nowhere."""

from __future__ import annotations

import base64
import os

from sampan.cli.failures import CommandError
from sampan.cli.jsontext import dump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.hosts import Host

HEADER = "X-Sampan-Build-Secrets"
_LIMIT_BYTES = 48 << 10  # of all together: a request's head has its limit


def header(texts: list[str], host: Host) -> str:
    """The header's value.

    Args:
        texts: as they were given to `--secret`.
        host: where they are sent.

    Raises:
        CommandError: one cannot be read, they are too large, or others could read them on their way.
    """
    if host.address is not None and host.tls is None:
        raise CommandError(
            "--secret is not sent over TCP without TLS: use --tlsverify, ssh:// or the socket", 125
        )
    found = {}
    for text in texts:
        name, content = _read(text)
        found[name] = base64.b64encode(content).decode()
    value = base64.urlsafe_b64encode(dump(found).encode()).decode()
    if len(value) > _LIMIT_BYTES * 16 // 9:
        raise CommandError(
            f"the secrets are larger than {_LIMIT_BYTES >> 10} kB together, which cannot be sent"
        )
    return value


def _read(text: str) -> tuple[str, bytes]:
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals:
            raise CommandError(f"invalid field '{part}' must be a key=value pair", 125)
        if key not in ("type", "id", "source", "src", "env"):
            raise CommandError(f"unexpected key '{key}' in '{part}'", 125)
        if key == "type" and value not in ("file", "env"):
            raise CommandError(f'unsupported secret type "{value}"', 125)
        fields["src" if key == "source" else key] = value
    name, source, variable = fields.get("id", ""), fields.get("src", ""), fields.get("env", "")
    if not name:
        raise CommandError("--secret: secret missing ID: id=NAME", 125)
    if fields.get("type") == "env" and not variable:
        source, variable = "", source
    if not source and not variable:
        source, variable = ("", name) if name in os.environ else (name, "")
    if variable:
        return name, os.fsencode(os.environ.get(variable, ""))
    try:
        with open(os.path.expanduser(source), "rb") as file:
            return name, file.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise CommandError(f"--secret id={name}: {source}: {(error.strerror or '').lower()}", 125) from None
