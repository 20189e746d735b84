"""Dockerfiles: lines to instructions, stages, and the words in them."""

from __future__ import annotations

import re

import pytest

from sampan.dockerfile import BuildArguments, Settings, Words, copied, declared, needed, parse, read, split
from sampan.dockerfile.modes import mode_change
from sampan.dockerfile.mounts import RunMount, mounts
from sampan.errors import InvalidParameter
from sampan.oci.image import ImageConfig


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("FROM a\n# comment\n\n  run b \\\n  # inside\n\n   && c\n", [("FROM", "a"), ("RUN", "b    && c")]),
        ("FROM a\r\nRUN b \\\r\n c\r\n", [("FROM", "a"), ("RUN", "b  c")]),
        ("\ufeffFROM a", [("FROM", "a")]),
        ("# syntax=docker/dockerfile:1\n# escape=`\nFROM a\nRUN b `\nc \\\nRUN d",
         [("FROM", "a"), ("RUN", "b c \\"), ("RUN", "d")]),
        ("# a comment\n# escape=`\nFROM a\nRUN b \\\n c", [("FROM", "a"), ("RUN", "b  c")]),
        ("FROM a\nRUN b \\\\\nRUN c", [("FROM", "a"), ("RUN", "b \\\\"), ("RUN", "c")]),
        ("FROM a\nRUN echo '# no comment'", [("FROM", "a"), ("RUN", "echo '# no comment'")]),
        ("FROM a\nRUN cat <<< word; x=$((1<<2))", [("FROM", "a"), ("RUN", "cat <<< word; x=$((1<<2))")]),
        ("FROM a\nCMD", [("FROM", "a"), ("CMD", "")]),
    ],
)  # fmt: skip
def test_lines_become_instructions(text: str, expected: list[tuple[str, str]]) -> None:
    assert [(one.keyword, one.rest) for one in parse(text.encode()).instructions] == expected


def test_flags_are_taken_off() -> None:
    copy = read("copy --from=one --chown='a b':c  x  y --z")
    assert (copy.flags, copy.rest) == ({"from": "one", "chown": "a b:c"}, "x  y --z")
    assert read("ADD -- --from=x y").rest == "--from=x y"
    assert read("RUN -- --not-ours").rest == "--not-ours"
    assert read('COPY ["a b", "c"]').words() == ["a b", "c"]
    assert read("COPY [a b]").words() == ["[a", "b]"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file with no instructions"),
        ("FROM a\nFETCH b", "on line 2: unknown instruction: FETCH"),
        ("FROM a\n\nRUN b \\\n c\nADD --unpack a b", "on line 5: ADD: the option --unpack needs BuildKit"),
        ("FROM a\nRUN --device=x b", "RUN: the option --device needs BuildKit"),
        ("FROM a\nRUN <<EOF\necho\n EOF", "on line 2: unterminated heredoc: no line is EOF"),
        ("FROM a\nCOPY --link=maybe a b", "COPY: expected a true or false value on flag: link"),
        ("FROM a\nCOPY --exclude a b", "COPY: missing a value on flag: exclude"),
        ("FROM a\nCOPY --from=$X a b", "COPY: --from takes no variables"),
        ("FROM a\nONBUILD RUN --security=insecure b", "RUN: the option --security needs BuildKit"),
        ("FROM a\nCOPY --chown a b", "missing a value on flag: chown"),
        ("FROM a\nCOPY --from=a --from=b a b", "duplicate flag specified: from"),
        ("FROM a\nCOPY --colour=red a b", "unknown flag: colour"),
        ("# escape=x\nFROM a", "invalid escape token 'x'"),
        ("# escape=`\n# escape=`\nFROM a", "on line 2: only one escape parser directive"),
        ("FROM a\nRUN --user=x b", "RUN: unknown flag: user"),
        ("FROM a\nRUN", "RUN requires at least one argument"),
        ("RUN a", "on line 1: no build stage in current context"),
        ("ARG a", "no build stage in current context"),
        ("FROM a b", "FROM requires either one or three arguments"),
        ("FROM a AS 1b", 'invalid name for build stage: "1b"'),
        ("FROM a AS x\nFROM b as X", "duplicate name X"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        split(parse(text))


VALUES = {"set": "a/b.tar.gz", "empty": "", "two": "80 443", "_x1": "y"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$set-${_x1}$", "a/b.tar.gz-y$"),
        ("$unset.", "."),
        ("\\$set '$set' \"$_x1\"", "$set $set y"),
        ('"a \\" \\$ \\n"', 'a " $ \\n'),
        ("a\\ b\\\\", "a b\\"),
        ("${set:-no}${empty:-d}${unset:-${_x1}}", "a/b.tar.gzdy"),
        ("[${empty-d}][${unset-d}]", "[][d]"),
        ("[${set:+in}][${empty:+in}][${empty+in}][${unset+in}]", "[in][][in][]"),
        ("${set:?why}", "a/b.tar.gz"),
        ("${set#*/} ${set##*/} ${set%.*} ${set%%.*}", "b.tar.gz b.tar.gz a/b.tar a/b"),
        ("${set/a/A} ${set//[ab]/_} ${set/\\//+}", "A/b.tar.gz _/_.t_r.gz a+b.tar.gz"),
        ("${unset:-'a}b'}", "a}b"),
        ("$1$_x1", "y"),
    ],
)
def test_variables_and_quotes(text: str, expected: str) -> None:
    assert Words(VALUES).one(text) == expected


def test_words_split_after_their_variables_are_replaced() -> None:
    assert Words(VALUES).several("$two  '1 2'$_x1 \"$two\"") == ["80", "443", "1 2y", "80 443"]
    assert Words({}, "`").one("a`$b\\c") == "a$b\\c"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'a", "single-quote"),
        ('"a', "double-quote"),
        ("${a", 'missing "}"'),
        ("${}", "bad substitution"),
        ("${a^b}", r"unsupported modifier \(\^b\)"),
        ("${a:?say it}", "a: say it"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${a:-" * 60 + "}" * 60, "more than 50"),
    ],
)
def test_words_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        Words(VALUES).one(text)


def test_only_the_stages_that_a_target_needs() -> None:
    _, stages = split(
        parse(
            "FROM a AS Base\nFROM base AS tool\nFROM x AS lone\nFROM y\nCOPY --from=tool a b\n"
            "FROM z AS end\nCOPY --from=3 a b\nCOPY --from=busybox a b\nFROM end"
        )
    )
    bases = [stage.base for stage in stages]
    assert needed(stages, "", bases) == [0, 1, 3, 4, 5]
    assert needed(stages, "Lone", bases) == [2]
    assert needed(stages, "1", bases) == [0, 1]
    with pytest.raises(InvalidParameter, match='target stage "nope" could not be found'):
        needed(stages, "nope", bases)


def test_arguments_that_are_offered_want_an_arg() -> None:
    arguments = BuildArguments({"OS": "given"}, {"ARCH": "amd64", "OS": "linux"})
    assert arguments.for_from() == {"ARCH": "amd64", "OS": "given"}
    stage = arguments.stage()
    assert stage.beside({}) == {}
    for name, default in (("ARCH", None), ("OS", "default")):
        stage.declare(name, default)
    assert stage.beside({}) == {"ARCH": "amd64", "OS": "given"}
    stage.declare("ARCH", "default")
    assert stage.beside({})["ARCH"] == "default"


def test_arguments_have_their_scopes() -> None:
    arguments = BuildArguments({"given": "g", "HTTP_PROXY": "p", "odd": "o", "bare": None})
    for name, default in declared(read('ARG version=1 given="x y" open'), "\\"):
        arguments.declare_global(name, default)
    assert arguments.for_from() == {"version": "1", "given": "g"}
    stage = arguments.stage()
    assert stage.beside({}) == {"HTTP_PROXY": "p"}
    for name, default in declared(read("ARG version own=${version} bare=b"), "\\"):
        stage.declare(name, default)
    assert stage.beside({"own": "by ENV"}) == {"HTTP_PROXY": "p", "version": "1"}
    assert arguments.unused() == ["odd"]
    assert not arguments.in_history("HTTP_PROXY")
    assert arguments.stage().beside({}) == {"HTTP_PROXY": "p"}
    assert arguments.stage(stage).beside({"own": ""}) == {
        "HTTP_PROXY": "p",
        "version": "1",
    }  # FROM that stage


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RUN <<EOF\na\n\tb\nEOF", [("EOF", True, "a\n\tb\n")]),
        ("RUN <<-EOF cat\n\ta\n\t\tb\n\tEOF", [("EOF", True, "a\nb\n")]),
        ("RUN 3<<'A B' x <<\"C\"\n1\nA B\n2\nC", [("A B", False, "1\n"), ("C", False, "2\n")]),
        ("COPY <<a.txt <<E\\F /d/\n# no comment \\\na.txt\nEF",
         [("a.txt", True, "# no comment \\\n"), ("EF", False, "")]),
        ("RUN \"<<X\" <<< y; echo $((1<<2)) << z a<<b", []),
        ("RUN [\"<<X\"]", []),
        ("ENV A=<<X", []),
        ("RUN cat \\\n  <<X\nx\nX", [("X", True, "x\n")]),
    ],
)  # fmt: skip
def test_here_documents(text: str, expected: list[tuple[str, bool, str]]) -> None:
    *_, instruction, last = parse(f"FROM a\n{text}\nUSER z").instructions
    found = [(one.name, one.expand, one.content) for one in instruction.heredocs]
    assert (found, last.rest) == (expected, "z")


def test_onbuild_keeps_its_here_documents() -> None:
    kept = parse("FROM a\nONBUILD COPY <<A <<-B /\n1\nA\n\t2\nB\nUSER z").instructions[1].rest
    trigger = parse(kept).instructions
    assert [(one.name, one.content) for one in trigger[0].heredocs] == [("A", "1\n"), ("B", "2\n")]
    assert len(trigger) == 1


def test_what_copy_and_add_say() -> None:
    text = "COPY --chown= --link --parents --exclude=*.md --exclude=$x <<A b$x <<'C' /d\n$x \\$x \"\nA\n$x\nC"
    said = copied(parse(f"FROM a\n{text}").instructions[1], Words({"x": "y"}))
    assert (said.sources, said.files) == (["by"], [("A", 'y $x "\n'), ("C", "$x\n")])
    assert (said.target, said.chown, said.parents, said.exclude) == ("/d", "", True, ["*.md", "y"])
    assert said.options == "--parents --exclude=*.md --exclude=y "
    for text, message in (
        ("COPY <<../x /\n../x", "a here-document cannot be named '../x'"),
        ("COPY a <<X\nX", "cannot accept a here-document as a destination"),
        ("ADD --checksum=sha256:1 a b", "invalid checksum 'sha256:1'"),
        (f"ADD --checksum=sha256:{'0' * 64} a b c", "checksum can't be specified for multiple sources"),
    ):
        with pytest.raises(InvalidParameter, match=message):
            copied(parse(f"FROM a\n{text}").instructions[1], Words({}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target=/x", RunMount("bind", "/x")),
        ("type=BIND,Source=s,dst=x,from=stage,rw", RunMount("bind", "x", "s", "stage", read_only=False)),
        ("type=bind,target=/x,readwrite=false", RunMount("bind", "/x")),
        ("type=cache,target=/c/./d/", RunMount("cache", "/c/./d/", read_only=False, id="/c/d")),
        ("type=cache,id=$ID,target=/c,sharing=Locked,ro,mode=0700,uid=1,gid=2",
         RunMount("cache", "/c", id="one/two", sharing="locked", mode=0o700, uid=1, gid=2)),
        ("type=tmpfs,target=/t,size=1.5m", RunMount("tmpfs", "/t", read_only=False, size_bytes=3 << 19)),
        ("type=secret,id=a/b", RunMount("secret", "/run/secrets/b", id="a/b")),
        ("type=secret,target=/d/s,required=true", RunMount("secret", "/d/s", id="s", required=True)),
        ("id=e,env=E,type=secret", RunMount("secret", id="e", env="E")),
        ('type=bind,"source=a,b",target=/x', RunMount("bind", "/x", "a,b")),
    ],
)  # fmt: skip
def test_mounts_of_run(text: str, expected: RunMount) -> None:
    run = parse(f"FROM a\nRUN --mount='{text}' true").instructions[1]
    assert mounts(run, Words({"ID": "one/two"})) == [expected]
    assert run.rest == "true"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=volume,target=/x", 'unsupported mount type "volume"'),
        ("type=bind,target", "invalid field 'target' must be a key=value pair"),
        ("type=bind,size=1,target=/x", "unexpected key 'size' for mount type 'bind'"),
        ("type=tmpfs,target=/x,size=big", "invalid value for size: big"),
        ("type=cache,target=/x,sharing=both", 'unsupported sharing value "both"'),
        ("type=cache,target=/x,mode=999", "invalid value 999 for mode"),
        ("type=cache,target=/x,uid=-1", "invalid value -1 for uid"),
        ("type=bind,target=/x,ro=perhaps", "invalid value for readonly: perhaps"),
        ("type=bind,from=$X,target=/x", "from= takes no variables"),
        ("type=secret", "one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id can't be set"),
        ("type=bind,colour=red,target=/x", "unexpected key 'colour'"),
    ],
)
def test_mounts_that_cannot_be(text: str, message: str) -> None:
    run = parse(f"FROM a\nRUN --mount={text} true").instructions[1]
    with pytest.raises(InvalidParameter, match=re.escape(message)) as raised:
        Settings.check(run, "\\")
    assert "on line 2" in str(raised.value)


def test_what_counts_of_a_mount() -> None:
    """The same text for the same thing, however it was written."""
    for one, other in (
        ("type=bind,source=a,target=/x,ro", "src=a,dst=/x"),
        ("type=cache,target=/c,id=/c,sharing=shared,rw", "target=/c,type=cache"),
    ):
        texts = {
            mounts(parse(f"FROM a\nRUN --mount={text} x").instructions[1], Words({}))[0].text()
            for text in (one, other)
        }
        assert len(texts) == 1
    said = "type=secret,id=a,mode=0440,uid=1,gid=2,required"
    run = parse(f"FROM a\nRUN --mount={said} --mount=type=tmpfs,ro,target=t,size=1k x").instructions[1]
    assert [one.text() for one in mounts(run, Words({}))] == [
        "type=secret,target=/run/secrets/a,id=a,mode=0440,uid=1,gid=2,required",
        "type=tmpfs,target=t,size=1024,ro",
    ]


@pytest.mark.parametrize(
    ("text", "mode", "directory", "expected"),
    [
        ("0640", 0o777, False, 0o640),
        ("u+x", 0o644, False, 0o744),
        ("+x", 0o640, False, 0o751),
        ("a=r,u+w-r", 0o777, False, 0o244),
        ("go-rwx", 0o755, True, 0o700),
        ("u=rwX,g=X,o=", 0o644, False, 0o600),
        ("u=rwX,g=X,o=", 0o644, True, 0o710),
        ("g+X", 0o744, False, 0o754),
        ("ug+s,+t", 0o755, True, 0o7755),
        ("u=rw", 0o4755, False, 0o655),
        ("=", 0o7777, False, 0),
    ],
)
def test_modes(text: str, mode: int, directory: bool, expected: int) -> None:
    assert oct(mode_change(text)(mode, directory)) == oct(expected)


@pytest.mark.parametrize("text", ["8", "77777", "u", "u+q", "x+r", "u+x,", "rw"])
def test_modes_that_are_none(text: str) -> None:
    with pytest.raises(InvalidParameter, match="invalid chmod parameter"):
        mode_change(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--interval=90s --retries=3 CMD true", """&{["CMD-SHELL" "true"] "1m30s" "0s" "0s" "0s" '\\x03'}"""),
        (
            '--timeout=1500ms --start-period=1h --start-interval=20ms --retries=39 CMD ["a", "b"]',
            """&{["CMD" "a" "b"] "0s" "1.5s" "1h0m0s" "20ms" '\\''}""",
        ),
        ("--retries=10 NONE", """&{["NONE"] "0s" "0s" "0s" "0s" '\\n'}"""),
    ],
)
def test_health_checks_in_history(text: str, expected: str) -> None:
    said = Settings(ImageConfig()).apply(read(f"HEALTHCHECK {text}"), {})
    assert said == f"HEALTHCHECK {expected}"
