"""The keys that detach from a container without stopping it (`ctrl-p,ctrl-q`)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.app import App
    from sampan.cli.flags import Values

DEFAULT = "ctrl-p,ctrl-q"
_SPECIAL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse_keys(text: str) -> bytes:
    """The bytes of a key sequence such as `ctrl-a,x`.

    Raises:
        ValueError: an unknown key.
    """
    found = bytearray()
    for key in text.split(","):
        if len(key) == 1 and key.isascii():
            found.append(ord(key))
            continue
        letter = key.removeprefix("ctrl-")
        if letter != key and len(letter) == 1 and "a" <= letter <= "z":
            found.append(ord(letter) - ord("a") + 1)
        elif letter != key and letter in _SPECIAL:
            found.append(_SPECIAL[letter])
        else:
            raise ValueError(f"invalid escape keys ({text}): Unknown character: '{key}'")
    return bytes(found)


def chosen_keys(app: App, values: Values) -> str:
    """What --detach-keys says, else `detachKeys` of docker's config.json; "" for the default."""
    keys = values.text("detach-keys") or str(app.config.get("detachKeys") or "")
    if keys:
        parse_keys(keys)
    return keys


class Watcher:
    """Looks for the sequence in what is typed; a beginning of it is held back until it is clear."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._seen = 0

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence was completed."""
        if not self._keys:
            return typed, False
        if not self._seen and self._keys[0] not in typed:
            return typed, False
        passed = bytearray()
        for one in typed:
            if one == self._keys[self._seen]:
                self._seen += 1
                if self._seen == len(self._keys):
                    self._seen = 0
                    return bytes(passed), True
                continue
            passed += self._keys[: self._seen]
            self._seen = 0
            if one == self._keys[0]:
                self._seen = 1
            else:
                passed.append(one)
        return bytes(passed), False
