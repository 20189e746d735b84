"""The `--name=value` of instructions: which there are, and which of them only BuildKit has."""

from __future__ import annotations

import re

from sampan.errors import InvalidParameter

# Each character fits one way only, so that a quote without its end costs no more than a look at all of it.
_FLAG = re.compile(r"""--((?:\\.|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^\s'"\\])+)(?:\s+|$)""")
_PART = re.compile(
    r"""'(?P<single>(?:\\.|[^'\\])*)'|"(?P<double>(?:\\.|[^"\\])*)"|(?P<plain>(?:\\.|[^'"\\])+)"""
)
_ESCAPED = re.compile(r"\\(.)")
_FLAGS: dict[str, frozenset[str]] = {
    "ADD": frozenset(("checksum", "chmod", "chown", "exclude", "keep-git-dir", "link")),
    "COPY": frozenset(("chmod", "chown", "exclude", "from", "link", "parents")),
    "FROM": frozenset(("platform",)),
    "HEALTHCHECK": frozenset(("interval", "timeout", "start-period", "start-interval", "retries")),
    "RUN": frozenset(("mount", "network")),
}
_BUILDKIT_FLAGS = {
    "ADD": frozenset(("unpack",)),
    "RUN": frozenset(("device", "security")),
}
_SWITCHES = frozenset(("keep-git-dir", "link", "parents"))  # may stand without a value
_REPEATED = frozenset(("exclude", "mount"))  # may stand several times
_BUILDKIT = (
    "needs BuildKit, which is not offered: write the step without it, or build elsewhere and pull the image"
)


def take_flags(keyword: str, rest: str) -> tuple[dict[str, str], dict[str, list[str]], str]:
    """Take the flags off the beginning of what follows an instruction's keyword.

    Returns:
        their values, the values of those that may stand several times, and what follows them.

    Raises:
        InvalidParameter: the instruction has no such flag, or not with such a value.
    """
    flags: dict[str, str] = {}
    lists: dict[str, list[str]] = {}
    if keyword not in _FLAGS:
        return flags, lists, rest
    while match := _FLAG.match(rest):
        rest = rest[match.end() :]
        flag = "".join(_ESCAPED.sub(r"\1", part[part.lastgroup or 0]) for part in _PART.finditer(match[1]))
        name, equals, value = flag.partition("=")
        if name in _BUILDKIT_FLAGS.get(keyword, ()):
            raise InvalidParameter(f"the option --{name} {_BUILDKIT}")
        if name not in _FLAGS[keyword]:
            raise InvalidParameter(f"unknown flag: {name}")
        if name in _REPEATED and equals:
            lists.setdefault(name, []).append(value)
            continue
        if name in flags:
            raise InvalidParameter(f"duplicate flag specified: {name}")
        if name in _SWITCHES:
            value = value.lower() if equals else "true"
            if value not in ("true", "false"):
                raise InvalidParameter(f"expected a true or false value on flag: {name}")
        elif not equals:
            raise InvalidParameter(f"missing a value on flag: {name}")
        flags[name] = value
    if "$" in flags.get("from", ""):
        raise InvalidParameter("--from takes no variables: name a stage by FROM … AS, and that one")
    return flags, lists, re.sub(r"^--(\s+|$)", "", rest)
