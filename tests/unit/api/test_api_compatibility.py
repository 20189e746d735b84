"""docs/compatibility.md is what the code does, and no field of Docker's description is forgotten."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sampan.api import versions
from sampan.engine.model import HostConfig
from sampan.http import NEWEST, ApiVersion
from support.contract import findings, members, specification
from support.fields import FIELDS, Elsewhere

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    place = ROOT / "tools" / "compatibility.py"
    spec = importlib.util.spec_from_file_location("compatibility", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_is_up_to_date(tool: ModuleType) -> None:
    stands, wanted = tool.DOCUMENT.read_text().splitlines(), tool.render().splitlines()
    lacks = [f"+ {line}" for line in wanted if line not in stands]
    stale = [f"- {line}" for line in stands if line not in wanted]
    assert stands == wanted, "\n".join(
        ["docs/compatibility.md is not up to date: run tools/compatibility.py, which changes", *stale, *lacks]
    )


def described() -> set[str]:
    """The members of the body that Docker describes, as the table spells them."""

    def of(name: str, prefix: str) -> set[str]:
        return {prefix + member for member in members({"$ref": f"#/definitions/{name}"})[0]}

    found = of("ContainerConfig", "") | of("HealthConfig", "Healthcheck.") | of("HostConfig", "HostConfig.")
    found |= of("EndpointSettings", "NetworkingConfig.EndpointsConfig.*.")
    found |= of("NetworkingConfig", "NetworkingConfig.")
    for member, shape in members({"$ref": "#/definitions/Mount"})[0].items():
        inner = shape.get("properties")
        found |= {f"HostConfig.Mounts[].{member}" + (f".{name}" if inner else "") for name in inner or [""]}
    return found | {"HostConfig.LogConfig.Type", "HostConfig.LogConfig.Config"}


def test_no_field_is_forgotten() -> None:
    listed = [field.path for field in FIELDS]
    assert len(listed) == len(set(listed))
    assert described() - set(listed) == set(), "tests/support/fields.py wants a line for each of these"
    assert set(listed) - described() == set(), "Docker describes no such member"


def test_what_is_tested_elsewhere_is() -> None:
    for field in FIELDS:
        if isinstance(field.outcome, Elsewhere):
            file, _, function = field.outcome.test.partition("::")
            assert f"def {function}(" in (ROOT / "tests" / file).read_text(), field.path


def test_every_flag_has_its_line(tool: ModuleType) -> None:
    recorded = json.loads(tool.CLI.read_text())
    run = dict(tool.flags("run"))
    assert set(run) == {f"--{name}" for name in recorded["run"]["flags"]}
    assert {f"--{name}" for name in recorded["create"]["flags"]} <= set(run)
    assert run["--memory"].startswith("`Memory` honoured")


def recorded(status: int, body: Any, target: str = "/containers/x/wait", method: str = "POST") -> list[str]:
    answer = {"method": method, "target": target, "status": status, "type": "application/json"}
    return list(findings(answer | {"lines": False, "body": body}))


def test_the_contract_finds_what_is_wrong() -> None:
    assert recorded(200, {"StatusCode": 0}) == []
    assert "'StatusCode' is a required property" in recorded(200, {})[0]
    assert "is not of type 'integer'" in recorded(200, {"StatusCode": "0"})[0]
    assert "Further: no such member" in recorded(200, {"StatusCode": 0, "Further": 1})[0]
    assert "status 204 is not described" in recorded(204, None)[0]
    assert "'message' is a required property" in recorded(404, {"error": "x"})[0]
    assert "Docker has no such endpoint" in recorded(200, {}, "/containers/x/nothing")[0]
    assert recorded(404, {"message": "page not found"}, "/containers/x/nothing") == []


def test_the_description_is_whole() -> None:
    assert specification()["info"]["version"] == "1.51"
    assert str(NEWEST) == "1.51"


def test_defaults_of_older_versions() -> None:
    for version, ipc, cgroupns in ((1, 39), "shareable", "host"), ((1, 40), "", "host"), ((1, 41), "", ""):
        config = HostConfig()
        versions.defaults(ApiVersion(*version), config)
        assert (config.ipc_mode, config.cgroupns_mode) == (ipc, cgroupns)
    config = HostConfig(ipc_mode="private", cgroupns_mode="private")
    versions.defaults(ApiVersion(1, 24), config)
    assert (config.ipc_mode, config.cgroupns_mode) == ("private", "private")
