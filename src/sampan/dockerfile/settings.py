"""The instructions that change an image's config, for builds and for `--change` of import and commit.

Each returns what the image's history says of it, in the words of Docker's classic builder.
"""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Callable, Mapping

from sampan import durations
from sampan.dockerfile.copies import words_of
from sampan.dockerfile.history import as_go_shows, quoted
from sampan.dockerfile.mounts import origins
from sampan.dockerfile.parsing import Instruction, json_list, wrong
from sampan.dockerfile.substitution import Words
from sampan.errors import InvalidParameter
from sampan.oci.image import Healthcheck, ImageConfig

DEFAULT_SHELL = ["/bin/sh", "-c"]
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_SHORTEST_NS = 10**6  # of what a health check may ask for
_MOST_RETRIES = 2**31 - 1


class Settings:
    """A config that instructions change, in place.

    Args:
        config: what they change.
        escape: the Dockerfile's escape character.
    """

    def __init__(self, config: ImageConfig, escape: str = "\\") -> None:
        self.config = config
        self._escape = escape
        self._command_given = False

    def apply(self, instruction: Instruction, environment: Mapping[str, str]) -> str:
        """Apply one instruction.

        Args:
            environment: the variables that its words may name.

        Returns:
            what history says of it.

        Raises:
            InvalidParameter: it is malformed.
            KeyError: it changes no config.
        """
        handler = HANDLERS[instruction.keyword]
        return handler(self, instruction, Words(environment, self._escape))

    @staticmethod
    def check(instruction: Instruction, escape: str) -> None:
        """Find what is malformed whatever its variables come to, before anything is done.

        Raises:
            InvalidParameter: with the line's number.
        """
        try:
            if instruction.keyword in ("ENV", "LABEL"):
                pairs(instruction.keyword, instruction.rest, escape)
            elif instruction.keyword in ("HEALTHCHECK", "ONBUILD", "SHELL"):
                Settings(ImageConfig(), escape).apply(instruction, {})
            elif instruction.keyword == "RUN":
                origins(instruction)
                network = instruction.flags.get("network", "default")
                if network not in ("default", "host", "none"):
                    raise InvalidParameter(f'RUN: invalid network mode "{network}": default, none or host')
            elif instruction.keyword in ("ADD", "COPY"):
                words_of(instruction)
            elif instruction.keyword == "VOLUME" and not instruction.words():
                raise InvalidParameter("VOLUME requires at least one argument")
        except InvalidParameter as error:
            raise wrong(instruction.line, error.message) from None

    # --- the command ---

    def command(self, rest: str) -> list[str]:
        """The program and its arguments that the JSON or the shell form names."""
        words = json_list(rest)
        if words is not None:
            return words
        return [*(self.config.shell or DEFAULT_SHELL), rest] if rest else []

    def _cmd(self, instruction: Instruction, _words: Words) -> str:
        self.config.cmd = self.command(instruction.rest)
        self._command_given = self._command_given or bool(self.config.cmd)
        return f"CMD {quoted(self.config.cmd)}"

    def _entrypoint(self, instruction: Instruction, _words: Words) -> str:
        self.config.entrypoint = self.command(instruction.rest)
        if not self._command_given:
            self.config.cmd = None  # the old command was the old entrypoint's
        return f"ENTRYPOINT {quoted(self.config.entrypoint)}"

    def _shell(self, instruction: Instruction, _words: Words) -> str:
        shell = json_list(instruction.rest)
        if not shell:
            raise InvalidParameter("SHELL requires the arguments to be in JSON form")
        self.config.shell = shell
        return f"SHELL [{' '.join(shell)}]"

    # --- names and values ---

    def _env(self, instruction: Instruction, words: Words) -> str:
        current = dict(item.partition("=")[::2] for item in self.config.env or [])
        pairs = self._pairs(instruction, words)
        current.update(pairs)
        self.config.env = [f"{key}={value}" for key, value in current.items()]
        return " ".join(["ENV", *(f"{key}={value}" for key, value in pairs)])

    def _label(self, instruction: Instruction, words: Words) -> str:
        pairs = self._pairs(instruction, words)
        self.config.labels = {**(self.config.labels or {}), **dict(pairs)}
        return " ".join(["LABEL", *(f"{key}={value}" for key, value in pairs)])

    def _pairs(self, instruction: Instruction, words: Words) -> list[tuple[str, str]]:
        found = []
        for key, value in pairs(instruction.keyword, instruction.rest, self._escape):
            name = words.one(key)
            if not name:
                raise InvalidParameter(f"{instruction.keyword} names can not be blank")
            found.append((name, words.one(value)))
        return found

    def _expose(self, instruction: Instruction, words: Words) -> str:
        ports = dict(self.config.exposed_ports or {})
        # Docker sorts them as they are written.
        ports_given = [port for one in sorted(instruction.rest.split()) for port in words.several(one)]
        for word in ports_given:
            match = _PORT.fullmatch(word)
            first = int(match[1]) if match else 0
            last = int(match[2] or first) if match else 0
            if match is None or not 0 < first <= last <= 65535:
                raise InvalidParameter(f"invalid containerPort: {word}")
            for port in range(first, last + 1):
                ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}
        self.config.exposed_ports = ports
        return f"EXPOSE {' '.join(ports_given)}"

    def _volume(self, instruction: Instruction, words: Words) -> str:
        paths = [words.one(word) for word in instruction.words()]
        for path in paths:
            if not path.strip():
                raise InvalidParameter("VOLUME specified can not be an empty string")
            self.config.volumes = {**(self.config.volumes or {}), path: {}}
        return f"VOLUME [{' '.join(paths)}]"

    # --- the rest ---

    def _user(self, instruction: Instruction, words: Words) -> str:
        self.config.user = words.one(instruction.rest)
        return f"USER {self.config.user}"

    def _workdir(self, instruction: Instruction, words: Words) -> str:
        path = words.one(instruction.rest)
        if not path:
            raise InvalidParameter("cannot normalize nothing")
        joined = posixpath.join("/", self.config.working_dir, path)
        self.config.working_dir = "/" + posixpath.normpath(joined).lstrip("/")
        return f"WORKDIR {self.config.working_dir}"

    def _stopsignal(self, instruction: Instruction, words: Words) -> str:
        value = words.one(instruction.rest)
        name = value.upper() if value.upper().startswith("SIG") else f"SIG{value.upper()}"
        known = name in signal.Signals.__members__ or re.fullmatch(r"SIGRT(MIN(\+\d+)?|MAX(-\d+)?)", name)
        if not known and not (re.fullmatch("[0-9]{1,3}", value) and 1 <= int(value) <= 64):
            raise InvalidParameter(f"Invalid signal: {value}")
        self.config.stop_signal = value
        return f"STOPSIGNAL {value}"

    def _onbuild(self, instruction: Instruction, _words: Words) -> str:
        rest = instruction.rest
        trigger = rest.split(None, 1)[0].upper()
        if trigger in ("MAINTAINER", "FROM"):
            raise InvalidParameter(f"{trigger} isn't allowed as an ONBUILD trigger")
        self.config.on_build = [*(self.config.on_build or []), rest]
        return f"ONBUILD {rest}"

    def _healthcheck(self, instruction: Instruction, _words: Words) -> str:
        health = Healthcheck()
        for key, value in instruction.flags.items():
            if key == "retries":
                if not re.fullmatch("[0-9]{1,10}", value) or int(value) > _MOST_RETRIES:
                    raise InvalidParameter(f"invalid value for --retries: {value!r}")
                health.retries = int(value)
            else:
                setattr(health, key.replace("-", "_"), _duration(key, value))
        kind, _, command = instruction.rest.partition(" ")
        command = command.strip()
        if kind.upper() == "NONE" and not command:
            health.test = ["NONE"]
        elif kind.upper() == "CMD" and not command:
            raise InvalidParameter("Missing command after HEALTHCHECK CMD")
        elif kind.upper() == "CMD":
            listed = json_list(command)
            health.test = ["CMD", *listed] if listed is not None else ["CMD-SHELL", command]
        else:
            raise InvalidParameter(f"Unknown type {kind!r} in HEALTHCHECK (try CMD)")
        self.config.healthcheck = health
        return f"HEALTHCHECK {as_go_shows(health)}"


HANDLERS: dict[str, Callable[[Settings, Instruction, Words], str]] = {
    "CMD": Settings._cmd,
    "ENTRYPOINT": Settings._entrypoint,
    "ENV": Settings._env,
    "EXPOSE": Settings._expose,
    "HEALTHCHECK": Settings._healthcheck,
    "LABEL": Settings._label,
    "ONBUILD": Settings._onbuild,
    "SHELL": Settings._shell,
    "STOPSIGNAL": Settings._stopsignal,
    "USER": Settings._user,
    "VOLUME": Settings._volume,
    "WORKDIR": Settings._workdir,
}


def environment_of(config: ImageConfig) -> dict[str, str]:
    """The variables that a config sets."""
    return dict(item.partition("=")[::2] for item in config.env or [])


def pairs(keyword: str, text: str, escape: str = "\\") -> list[tuple[str, str]]:
    """`key=value key="two words"`, or the older `key all the rest`; quotes and variables stay as they are.

    Raises:
        InvalidParameter: a word has no `=`.
    """
    end = re.escape(escape)
    word = rf"""(?:[^\s"'{end}]|{end}.|"(?:[^"{end}]|{end}.)*"|'[^']*'|["'{end}])+"""
    words = re.findall(word, text)
    if "=" not in words[0]:
        key, *value = text.split(None, 1)
        if not value:
            raise InvalidParameter(f"{keyword} must have two arguments")
        return [(key, value[0])]
    found = []
    for one in words:
        key, equals, value = one.partition("=")
        if not equals:
            raise InvalidParameter(f"Syntax error - can't find = in {one!r}. Must be of the form: name=value")
        if not key:
            raise InvalidParameter(f"{keyword} names can not be blank")
        found.append((key, value))
    return found


def _duration(key: str, text: str) -> int:
    try:
        length = durations.read(text)
    except ValueError:
        raise InvalidParameter(f"invalid duration for --{key}: {text[:100]!r} (as in 30s, 1m30s)") from None
    if length and length < _SHORTEST_NS:
        raise InvalidParameter(f'Interval "{key}" cannot be less than 1ms')
    return length
