"""Digests, chain ids and the documents of an image."""

from __future__ import annotations

import json

import pytest

from sampan.errors import InvalidParameter
from sampan.oci.digest import chain_ids, check_digest, sha256
from sampan.oci.image import encode_image, parse_image, parse_index, parse_manifest

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_chain_ids_name_a_layer_with_all_below_it() -> None:
    assert chain_ids([A]) == [A]
    assert chain_ids([A, B, A])[1:] == [
        sha256(f"{A} {B}".encode()),
        sha256(f"{sha256(f'{A} {B}'.encode())} {A}".encode()),
    ]


@pytest.mark.parametrize(
    "value", ["sha256:" + "A" * 64, "sha256:abc", "sha512:" + "a" * 128, "", None, 7, A + "\n", "../../etc"]
)
def test_refuses_other_digests(value: object) -> None:
    with pytest.raises(InvalidParameter, match="invalid digest"):
        check_digest(value)


def test_reads_a_config_with_members_of_other_tools() -> None:
    document = parse_image(
        json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "container_config": {"anything": [1]},
                "config": {
                    "Cmd": ["sh"],
                    "Env": None,
                    "ExposedPorts": {"80/tcp": {}},
                    "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000},
                    "Unknown": 1,
                },
                "rootfs": {"type": "layers", "diff_ids": [A]},
                "history": [{"created_by": "x"}, {"empty_layer": True}],
            }
        ).encode()
    )
    assert (document.config.cmd, document.config.env, document.diff_ids) == (["sh"], None, [A])
    assert document.config.healthcheck is not None
    assert document.config.healthcheck.interval == 5_000_000_000
    assert [step.empty_layer for step in document.history] == [False, True]
    assert parse_image(encode_image(document)) == document


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b'{"config": []}',
        b'{"config": {"Cmd": "sh"}}',
        b'{"config": {"Env": [1]}}',
        b'{"rootfs": {"diff_ids": ["x"]}}',
        b'{"rootfs": {"type": "other"}}',
        b'{"history": [1]}',
    ],
)
def test_refuses_a_broken_config(data: bytes) -> None:
    with pytest.raises(InvalidParameter):
        parse_image(data)


def test_refuses_broken_manifests_and_indexes() -> None:
    for data in (b"{}", b'{"schemaVersion": 1}', b'{"schemaVersion": 2, "config": {"digest": "x"}}'):
        with pytest.raises(InvalidParameter):
            parse_manifest(data)
        with pytest.raises(InvalidParameter):
            parse_index(data)
