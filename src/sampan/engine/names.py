"""Container names: what a user's must look like, and random ones of people who went by water."""

from __future__ import annotations

import re
import secrets

from sampan.errors import InvalidParameter

_NAME = re.compile(r"/?([a-zA-Z0-9][a-zA-Z0-9_.-]+)\Z")

_ADJECTIVES = """
able amber ample azure balmy bold brave breezy bright brisk calm candid careful cheerful clear clever copper
coral crisp curious daring deft eager early easy elegant fair fearless fleet fond frank free fresh gallant
gentle gilded glad golden graceful grand happy hardy hearty honest humble ivory jade jolly keen kind lasting
level light lively loyal lucid lucky lunar mellow merry mild modest nimble noble northern open patient
placid plucky polished prompt proud quick quiet ready rested robust rosy salty sandy sharp silent silver
simple smart smooth snug solar solid southern spirited spry steady still stout sturdy subtle sunny swift
tidal tidy trim trusty upbeat urbane valiant vivid warm western willing windy wise witty zealous zesty
""".split()

_SAILORS = """
amundsen anson barents baret beaufort bering blackborow bligh bougainville bowditch brendan cabot cartier
chichester columbus conrad cook cousteau crowhurst dampier darwin davis dias drake earhart elcano eriksson
faxian fitzroy flinders fram franklin frobisher gama gerbault grotius halley hanno harrison heyerdahl hudson
ibnmajid jeanne joshua kamehameha knoxjohnston krusenstern laperouse lovelock magellan malaspina mau mawson
melville mercator moitessier nansen nelson nemo ostrom oughtred parry piccard pinzon polo pytheas raleigh
ross sacajawea scott seagram sinbad shackleton slocum smeeton spray tabarly tasman tristan tupaia vancouver
vespucci weddell wegener worsley xufu yermak zacuto zhenghe zhangqian
""".split()


def random_name(attempt: int = 0) -> str:
    """A name such as `steady_zhenghe`; from the first collision on, with a digit behind it."""
    name = f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_SAILORS)}"
    return f"{name}{secrets.randbelow(10)}" if attempt else name


def check_name(name: str) -> str:
    """A name that a user wants for a container, without the `/` in front.

    Raises:
        InvalidParameter: not a name that Docker allows.
    """
    match = _NAME.match(name)
    if match is None:
        raise InvalidParameter(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return match[1]
