"""What Dockerfiles of today use beyond the classic builder's: here-documents, new flags."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from support.building import Built, build, context, members, tidied
from support.engine import Engine
from support.hostile import Hostile, reply


@pytest.fixture(autouse=True)
def tidy(engine: Engine, busybox: str) -> Iterator[None]:
    with tidied(engine):
        yield


def worked(engine: Engine, body: bytes, **query: str) -> Built:
    """A build that must work."""
    done = build(engine, body, **query)
    assert not done.error, done.text + done.error
    return done


HEREDOCS = """
ARG WHO=world
ENV GREETING=hello
RUN <<EOF
echo "$GREETING $WHO"
  echo two
EOF
RUN <<-'EOF' cat > /a && <<B tac
\tx $WHO
\tEOF
1
2
B
RUN <<EOF
#!/bin/sh -e
echo "$0 $WHO"
EOF
COPY <<one.txt <<'two.sh' /d/
$GREETING "${WHO}" \\$x
one.txt
$WHO
two.sh
COPY --chmod=755 <<-EOF /script
\t#!/bin/sh
\techo script \\$1
EOF
ADD --chown=7:8 <<EOF /added
a
EOF
RUN cat /a /d/one.txt /d/two.sh /added; /script 1
ONBUILD RUN <<EOF
echo triggered
EOF
"""


def test_here_documents(engine: Engine, busybox: str) -> None:
    done = worked(engine, context(f"FROM {busybox}{HEREDOCS}"), t="heredocs")
    assert done.outputs() == [
        ["hello world", "two"],
        ["2", "1"],
        ["/dev/pipes/EOF world"],
        ["x $WHO", 'hello "world" $x', "$WHO", "a", "script 1"],
    ]
    found = members(engine, "heredocs")
    owners = {name: (found[name].mode, found[name].uid, found[name].gid) for name in ("d/one.txt", "added")}
    assert owners == {"d/one.txt": (0o644, 0, 0), "added": (0o644, 7, 8)}
    assert "dev/pipes" not in found
    assert worked(engine, context("FROM heredocs\nENV A=1")).outputs() == [["triggered"]]
    # what they say is known to the cache
    other = context(f"FROM {busybox}{HEREDOCS}".replace('"$0 $WHO"', "$0"))
    again = engine.docker("build", "-", env={"DOCKER_BUILDKIT": "0"}, stdin=other)
    assert again.out.count(" ---> Using cache\n") == 4 and "\n/dev/pipes/EOF\n" in again.out


def test_flags_of_copy_and_add(engine: Engine, busybox: str) -> None:
    files = {"a__x.txt": "x", "a__b__y.txt": "y", "a__b__z.md": "z", "c.txt": "c"}
    with Hostile() as server:
        server.on("GET", "/file", reply(200, b"web"))
        url = f"http://127.0.0.1:{server.port}/file"
        sha256 = hashlib.sha256(b"web").hexdigest()
        dockerfile = f"""FROM {busybox} AS base
ARG INHERITED=yes
RUN mkdir -p /e/f && touch /e/f/g && ln -s /e /tmp/link
FROM base
COPY --link --chown=3 c.txt /linked
COPY --parents a/x.txt c.txt ./a/./b /parents
COPY --parents a/**/*.txt /deep/
COPY --parents --from=0 /tmp/link/f /far
COPY --exclude=**/*.md --exclude=b/y* a /some
ADD --checksum=sha256:{sha256} {url} /web
WORKDIR /w
COPY a/x.txt c.txt ./new/.
COPY --chmod=u=rwX,go=,g+X a /modes
VOLUME /v
RUN echo $INHERITED > /v/kept
VOLUME /empty
RUN cat /v/kept; ls -d /empty
"""
        done = worked(engine, context(dockerfile, **files), t="flags")
        assert done.outputs()[-1] == ["yes", "/empty"]
        everything = members(engine, "flags")
        found = {name: one for name, one in everything.items() if not one.isdir()}
        below = ("linked", "parents/", "deep/", "far/", "some/", "web", "w/")
        assert {name for name in found if name.startswith(below)} == {
            *("linked", "parents/a/x.txt", "parents/c.txt", "parents/b/y.txt", "parents/b/z.md"),
            *(
                "deep/a/x.txt",
                "deep/a/b/y.txt",
                "far/e/f/g",
                "some/x.txt",
                "web",
                "w/new/x.txt",
                "w/new/c.txt",
            ),
        }
        assert (found["linked"].uid, found["linked"].gid) == (3, 3)
        assert "empty" not in everything
        assert (found["modes/x.txt"].mode, found["v/kept"].size) == (0o600, 4)
        wrong = build(engine, context(f"FROM {busybox}\nADD --checksum=sha256:{'0' * 64} {url} /web"))
        assert f"digest mismatch sha256:{sha256}" in wrong.error
        wrong = build(engine, context(f"FROM {busybox}\nADD --checksum=sha256:{'0' * 64} c.txt /", **files))
        assert "checksum can't be specified for non-HTTP(S) sources" in wrong.error


def test_a_stage_that_only_a_trigger_of_the_base_needs(engine: Engine, busybox: str) -> None:
    trigger = f"FROM {busybox}\nONBUILD COPY --from=tools /tool /tool\nONBUILD RUN cat /tool"
    worked(engine, context(trigger), t="trigger")
    dockerfile = f"""ARG LAST=trigger
FROM nothing.invalid/unneeded AS unneeded
FROM {busybox} AS tools
RUN echo tool > /tool
FROM $LAST AS end
HEALTHCHECK --interval=90s --retries=3 CMD true
"""
    done = worked(engine, context(dockerfile), t="end")
    assert done.outputs()[-1] == ["tool"]
    history = engine.api.get("/images/end/history")
    assert history[0]["CreatedBy"].endswith(
        r"""#(nop)  HEALTHCHECK &{["CMD-SHELL" "true"] "1m30s" "0s" "0s" "0s" '\x03'}"""
    )
