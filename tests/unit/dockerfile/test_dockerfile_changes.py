"""The instructions of `--change`, in both their forms."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.dockerfile import apply_changes
from sampan.errors import InvalidParameter
from sampan.oci.image import ImageConfig


@pytest.mark.parametrize(
    ("changes", "attribute", "value"),
    [
        (['CMD ["a", "b c"]'], "cmd", ["a", "b c"]),
        (["cmd echo $HOME"], "cmd", ["/bin/sh", "-c", "echo $HOME"]),
        (["CMD [not json"], "cmd", ["/bin/sh", "-c", "[not json"]),
        (['SHELL ["/bin/ash", "-x"]', "ENTRYPOINT run me"], "entrypoint", ["/bin/ash", "-x", "run me"]),
        (["ENTRYPOINT []"], "entrypoint", []),
        (["ENV A=1 B=\"two words\" C='x y' D=a\\ b"], "env", ["A=1", "B=two words", "C=x y", "D=a b"]),
        (["ENV KEY the whole rest"], "env", ["KEY=the whole rest"]),
        (["ENV P=/bin", "ENV P=/opt:$P Q=${NO:-z} R=${P:+set}"], "env", ["P=/opt:/bin", "Q=z", "R=set"]),
        (["EXPOSE 80 53/udp 8000-8002"], "exposed_ports",
         {port: {} for port in ("80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp")}),
        (["LABEL a=b \"c d\"=e"], "labels", {"a": "b", "c d": "e"}),
        (["USER 10:20"], "user", "10:20"),
        (['VOLUME ["/a b"]', "VOLUME /c /d"], "volumes", {"/a b": {}, "/c": {}, "/d": {}}),
        (["WORKDIR /a", "WORKDIR b/../c"], "working_dir", "/a/c"),
        (["STOPSIGNAL SIGUSR1"], "stop_signal", "SIGUSR1"),
        (["STOPSIGNAL 9"], "stop_signal", "9"),
        (["ONBUILD RUN x", "ONBUILD USER y"], "on_build", ["RUN x", "USER y"]),
    ],
)  # fmt: skip
def test_applies(changes: list[str], attribute: str, value: Any) -> None:
    config = ImageConfig()
    apply_changes(config, changes)
    assert getattr(config, attribute) == value


def test_healthcheck() -> None:
    config = ImageConfig()
    apply_changes(config, ["HEALTHCHECK --interval=1m30s --timeout=500ms --retries=3 CMD curl -f x"])
    assert config.healthcheck is not None
    assert config.healthcheck.test == ["CMD-SHELL", "curl -f x"]
    assert (config.healthcheck.interval, config.healthcheck.timeout) == (90_000_000_000, 500_000_000)
    apply_changes(config, ["HEALTHCHECK NONE"])
    assert config.healthcheck.test == ["NONE"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("FROM x", "FROM is not a valid change command"),
        ("RUN true", "RUN is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV A", "ENV must have two arguments"),
        ("LABEL a=b c", "can't find = in 'c'"),
        ("EXPOSE http", "invalid containerPort: http"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("STOPSIGNAL SIGNOPE", "Invalid signal: SIGNOPE"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK --interval=x CMD a", "invalid duration for --interval"),
        ("HEALTHCHECK WHAT", "Unknown type 'WHAT' in HEALTHCHECK"),
    ],
)
def test_refuses(change: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message.replace("(", r"\(")):
        apply_changes(ImageConfig(), [change])


def test_an_entrypoint_drops_the_command_that_went_with_the_old_one() -> None:
    config = ImageConfig(entrypoint=["/old"], cmd=["argument"])
    apply_changes(config, ['ENTRYPOINT ["/new"]'])
    assert (config.entrypoint, config.cmd) == (["/new"], None)
    apply_changes(config, ["CMD x y", 'ENTRYPOINT ["/newer"]'])
    assert config.cmd == ["/bin/sh", "-c", "x y"]
