"""Exit codes and error lines of whole command lines, without a daemon."""

import pytest

from sampan.cli.app import dispatch
from sampan.cli.streams import Frames


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["foo"], 1, "sampan: unknown command: sampan foo\n\nRun 'sampan --help' for more information\n"),
        (
            ["pss"],
            1,
            "sampan: unknown command: sampan pss (did you mean ps?)\n\n"
            "Run 'sampan --help' for more information\n",
        ),
        (
            ["--bogus"],
            125,
            "unknown flag: --bogus\n\nUsage:  sampan [OPTIONS] COMMAND [ARG...]\n\n"
            "Run 'sampan --help' for more information\n",
        ),
        (
            ["ps", "--bogus"],
            125,
            "unknown flag: --bogus\n\nUsage:  sampan ps [OPTIONS]\n\n"
            "Run 'sampan ps --help' for more information\n",
        ),
        (
            ["rm"],
            1,
            "sampan: 'sampan rm' requires at least 1 argument\n\n"
            "Usage:  sampan rm [OPTIONS] CONTAINER [CONTAINER...]\n\n"
            "See 'sampan rm --help' for more information\n",
        ),
        (
            ["ps", "a"],
            1,
            "sampan: 'sampan ps' accepts no arguments\n\nUsage:  sampan ps [OPTIONS]\n\n"
            "Run 'sampan ps --help' for more information\n",
        ),
        (
            ["tag", "a"],
            1,
            "sampan: 'sampan tag' requires 2 arguments\n\n"
            "Usage:  sampan tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]\n\n"
            "Run 'sampan tag --help' for more information\n",
        ),
        (
            ["run", "--restart=always", "--rm", "busybox"],
            125,
            "sampan: conflicting options: cannot specify both --restart and --rm\n\n"
            "Run 'sampan run --help' for more information\n",
        ),
        (
            ["run", "--env-file", "/nonexistent", "busybox"],
            125,
            "sampan: open /nonexistent: no such file or directory\n\n"
            "Run 'sampan run --help' for more information\n",
        ),
        (
            ["run", "Busybox"],
            125,
            "sampan: invalid reference format: repository name (library/Busybox) must be lowercase\n\n"
            "Run 'sampan run --help' for more information\n",
        ),
        (
            ["-H", "unix:///nonexistent.sock", "ps"],
            1,
            "Cannot connect to the Sampan daemon at unix:///nonexistent.sock. "
            "Is the sampan daemon running?\n",
        ),
        (
            ["-H", "unix:///nonexistent.sock", "run", "busybox"],
            125,
            "sampan: Cannot connect to the Sampan daemon at unix:///nonexistent.sock. "
            "Is the sampan daemon running?\n\nRun 'sampan run --help' for more information\n",
        ),
        (["-H", "ssh://x", "ps"], 1, None),
    ],
)
def test_failures(words, code, text, capfd):
    assert dispatch(words) == code
    captured = capfd.readouterr()
    assert captured.out == ""
    assert text is None or captured.err == text


def test_frames_split_anywhere_come_out_whole(capfd):
    data = b"\x01\0\0\0\0\0\0\3out\x02\0\0\0\0\0\0\3err\x01\0\0\0\0\0\0\1!"
    frames = Frames()
    for position in range(len(data)):
        frames.feed(data[position : position + 1])
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("out!", "err")
