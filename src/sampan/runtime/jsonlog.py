"""A container's log in Docker's json-file format: one JSON object a line.

Each line of output becomes `{"log":"…\\n","stream":"stdout","time":"…"}`; one longer than 16 KiB is
split, and only its last piece ends in a newline; a last line that had none gets none.
"""

from __future__ import annotations

import json
import time
from json.encoder import encode_basestring

from sampan.runtime.logfile import PIECE_BYTES, LogFile, cut
from sampan.runtime.protocol import LogSpec


class JsonLog(LogFile):
    """The log file and the unfinished lines of both streams."""

    def __init__(self, spec: LogSpec) -> None:
        super().__init__(spec)
        self._second = -1
        self._second_text = ""
        attrs = ""
        if spec.attrs:
            attrs = f',"attrs":{json.dumps(spec.attrs, ensure_ascii=False, separators=(",", ":"))}'
        self._tails = {stream: f',"stream":"{stream}"{attrs},"time":"' for stream in self._rest}

    def write(self, stream: str, data: bytes, now_ns: int) -> None:
        """As promised by `LogFile`."""
        rest = self._rest[stream]
        if rest:
            data = rest + data
        end = data.rfind(b"\n") + 1
        lines = data[:end].decode("utf-8", "replace").split("\n")
        lines.pop()
        tail = f'{self._tails[stream]}{self._timestamp(now_ns)}"}}\n'
        # A character is at most four bytes, so only a quarter of the limit proves that no line is too long.
        if end > PIECE_BYTES and max(map(len, lines)) > PIECE_BYTES // 4:
            pieces = _split_lines(data[:end])
        else:
            pieces = [f"{line}\n" for line in lines]
        rest = data[end:]
        while len(rest) >= PIECE_BYTES:
            at = cut(rest, 0)
            pieces.append(rest[:at].decode("utf-8", "replace"))
            rest = rest[at:]
        self._rest[stream] = rest
        if pieces:
            encode = encode_basestring
            self._write_records([f'{{"log":{encode(piece)}{tail}' for piece in pieces])

    def _write_rest(self, stream: str, rest: bytes, now_ns: int) -> None:
        text = encode_basestring(rest.decode("utf-8", "replace"))
        self._write_records([f'{{"log":{text}{self._tails[stream]}{self._timestamp(now_ns)}"}}\n'])

    def _write_records(self, records: list[str]) -> None:
        self._append("".join(records).encode(), lambda: [record.encode() for record in records])

    def _timestamp(self, now_ns: int) -> str:
        second, fraction = divmod(now_ns, 1_000_000_000)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def _split_lines(data: bytes) -> list[str]:
    pieces = []
    for line in data.split(b"\n")[:-1]:
        start = 0
        while len(line) - start > PIECE_BYTES:
            end = cut(line, start)
            pieces.append(line[start:end].decode("utf-8", "replace"))
            start = end
        pieces.append(line[start:].decode("utf-8", "replace") + "\n")
    return pieces
