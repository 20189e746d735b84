"""The stages of a Dockerfile, and which of them a target needs."""

from __future__ import annotations

import re
from dataclasses import field

from sampan.dataclasses import dataclass
from sampan.dockerfile.mounts import origins
from sampan.dockerfile.parsing import Dockerfile, Instruction
from sampan.errors import InvalidParameter


@dataclass(slots=True)
class Stage:
    """From one FROM to the next.

    Attributes:
        base: the image or stage it stands on, variables not yet replaced.
        name: in lower case; empty for none.
        platform: of the base, variables not yet replaced; empty for what the build asks for.
    """

    start: Instruction
    base: str
    name: str = ""
    platform: str = ""
    instructions: list[Instruction] = field(default_factory=list)


def split(dockerfile: Dockerfile) -> tuple[list[Instruction], list[Stage]]:
    """The ARGs before the first FROM, and the stages.

    Raises:
        InvalidParameter: an instruction stands where none can, or a FROM is malformed.
    """
    arguments: list[Instruction] = []
    stages: list[Stage] = []
    for instruction in dockerfile.instructions:
        if instruction.keyword == "FROM":
            stages.append(_begun(instruction, stages))
        elif stages:
            stages[-1].instructions.append(instruction)
        elif instruction.keyword == "ARG":
            arguments.append(instruction)
        else:
            raise InvalidParameter(
                f"dockerfile parse error on line {instruction.line}: no build stage in current context:"
                " a Dockerfile begins with FROM"
            )
    if not stages:
        raise InvalidParameter("no build stage in current context: a Dockerfile begins with FROM")
    return arguments, stages


def _begun(instruction: Instruction, before: list[Stage]) -> Stage:
    words = instruction.rest.split()
    where = f"dockerfile parse error on line {instruction.line}: "
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise InvalidParameter(f"{where}FROM requires either one or three arguments")
    name = words[2].lower() if len(words) == 3 else ""
    if name and not re.fullmatch(r"[a-z][a-z0-9-_.]*", name):
        raise InvalidParameter(
            f'{where}invalid name for build stage: "{words[2]}",'
            " name can't start with a number or contain symbols"
        )
    if name and any(stage.name == name for stage in before):
        raise InvalidParameter(f"{where}duplicate name {words[2]}")
    return Stage(instruction, words[0], name, instruction.flags.get("platform", ""))


def find(stages: list[Stage], text: str, before: int) -> int | None:
    """The stage below `before` that a name or number means; None for none."""
    for at in range(before - 1, -1, -1):
        if stages[at].name and stages[at].name == text.lower():
            return at
    return int(text) if re.fullmatch("[0-9]{1,9}", text) and int(text) < before else None


def needed(stages: list[Stage], target: str, bases: list[str]) -> list[int]:
    """The stages to build, in their order, so that `target` (the last when empty) can be.

    Args:
        bases: what the stages stand on, variables replaced.

    Raises:
        InvalidParameter: there is no such stage.
    """
    last = find(stages, target, len(stages)) if target else len(stages) - 1
    if last is None:
        raise InvalidParameter(f'target stage "{target}" could not be found')
    wanted: set[int] = set()
    todo = [last]
    while todo:
        at = todo.pop()
        if at in wanted:
            continue
        wanted.add(at)
        named = [name for one in stages[at].instructions for name in origins(one)]
        if not bases[at].isdecimal():
            named.append(bases[at])
        found = [find(stages, name, at) for name in named if name]
        todo += [one for one in found if one is not None]
    return sorted(wanted)
