"""Build arguments and their scopes (Dockerfile reference, "Understand how ARG and FROM interact")."""

from __future__ import annotations

import re
from collections.abc import Mapping

from sampan.dockerfile.parsing import Instruction
from sampan.dockerfile.settings import pairs
from sampan.errors import InvalidParameter

# These need no ARG, and history does not tell of them.
PREDEFINED = frozenset(
    name
    for one in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (one, one.lower())
)


def declared(instruction: Instruction, escape: str) -> list[tuple[str, str | None]]:
    """The names of an ARG with their defaults, which are as written; None for no default.

    Raises:
        InvalidParameter: a name is missing.
    """
    found: list[tuple[str, str | None]] = []
    for word in re.findall(rf"""(?:[^\s"']|{re.escape(escape)}.|"[^"]*"|'[^']*'|["'])+""", instruction.rest):
        if "=" not in word:
            found.append((word, None))
            continue
        found += pairs("ARG", word, escape)
    if not all(name for name, _ in found):
        raise InvalidParameter("ARG names can not be blank")
    return found


class BuildArguments:
    """The arguments of one build.

    Args:
        given: what `--build-arg` says; None for a name without a value.
        offered: values of arguments that FROM may name at once, and a stage with an ARG without a default.
    """

    def __init__(self, given: Mapping[str, str | None], offered: Mapping[str, str] | None = None) -> None:
        self._given = dict(given)
        self._offered = dict(offered or {})
        self._global: dict[str, str | None] = {}
        self._used: set[str] = set()

    def declare_global(self, name: str, default: str | None) -> None:
        """An ARG before the first FROM."""
        self._global[name] = default
        self._used.add(name)

    def stage(self, parent: StageArguments | None = None) -> StageArguments:
        """Those of a new stage, which has what the stage that it stands on has declared."""
        return StageArguments(self, parent)

    def used(self, name: str) -> None:
        """An ARG of a stage declares it."""
        self._used.add(name)

    def value(self, name: str, default: str | None) -> str | None:
        """What an argument that is declared with a default comes to; None for nothing."""
        if name in self._given:
            return self._given[name]
        if default is not None:
            return default
        value = self._global.get(name)
        return self._offered.get(name) if value is None else value

    def for_from(self) -> dict[str, str]:
        """The variables that FROM may name."""
        names = {**dict.fromkeys(self._offered), **self._global}
        values = {name: self.value(name, default) for name, default in names.items()}
        return {name: value for name, value in values.items() if value is not None}

    def in_history(self, name: str) -> bool:
        """Whether history, and so the cache, knows of it."""
        return name not in PREDEFINED or name in self._used

    def unused(self) -> list[str]:
        """What was given and no ARG declares."""
        return sorted(name for name in self._given if name not in self._used and name not in PREDEFINED)


class StageArguments:
    """The arguments of one stage: see `BuildArguments.stage`."""

    def __init__(self, build: BuildArguments, parent: StageArguments | None) -> None:
        self._build = build
        self._declared: dict[str, str | None] = dict(parent._declared) if parent is not None else {}

    def declare(self, name: str, default: str | None) -> None:
        """An ARG of the stage."""
        self._declared[name] = default
        self._build.used(name)

    def beside(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The variables that the stage's instructions may name, but for those that ENV has set."""
        names = {**dict.fromkeys(PREDEFINED), **self._declared}
        values = {name: self._build.value(name, default) for name, default in names.items()}
        found = {name: value for name, value in sorted(values.items()) if value is not None}
        return {name: value for name, value in found.items() if name not in environment}
