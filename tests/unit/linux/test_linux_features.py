"""The diagnosis of what a kernel lacks: each cause has its own remedy."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from sampan.linux import features
from sampan.linux.features import Kernel, diagnose, lacking, namespace_refusal
from sampan.linux.kconfig import Config


def kernel(tmp_path: Path, options: dict[str, str] | None, version: tuple[int, int] = (6, 1)) -> Kernel:
    config = None if options is None else Config("/boot/config-6.1.0", version, options)
    return Kernel("6.1.0-13", version, config, str(tmp_path / "modules"), str(tmp_path / "loaded"))


def modules(tmp_path: Path, *files: str) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/modules.dep").write_text("".join(f"kernel/drivers/net/{file}:\n" for file in files))


def test_left_out_of_the_kernel(tmp_path: Path) -> None:
    said = lacking("veth", kernel(tmp_path, {"BRIDGE": "y"}))
    assert said == (
        "this kernel has no veth pairs: it was built without CONFIG_VETH (/boot/config-6.1.0); boot your "
        "distribution's own kernel, or build this one with CONFIG_VETH=y"
    )


@pytest.mark.parametrize("file", ["veth.ko", "veth.ko.xz"])
def test_a_module_that_is_not_loaded(tmp_path: Path, file: str) -> None:
    modules(tmp_path, file)
    for options in ({"VETH": "m"}, None):
        found = diagnose("veth", kernel(tmp_path, options))
        assert found.cause == "its module veth is not loaded"
        assert found.remedy.startswith("`modprobe veth`")


def test_a_module_with_dashes_in_its_files_name(tmp_path: Path) -> None:
    modules(tmp_path, "nft_masq.ko", "nft-nat.ko.zst")
    found = diagnose("nft_nat", kernel(tmp_path, {"NF_NAT": "m", "NFT_NAT": "m"}))
    assert found.cause == "its module nft_nat is not loaded"


def test_a_module_that_is_not_installed(tmp_path: Path) -> None:
    modules(tmp_path, "dummy.ko")
    found = diagnose("veth", kernel(tmp_path, {"VETH": "m"}))
    assert "is not in" in found.cause and "linux-modules-extra-6.1.0-13" in found.remedy


def test_modules_of_another_kernel(tmp_path: Path) -> None:
    """After an upgrade without a reboot the running kernel's modules are gone."""
    found = diagnose("veth", kernel(tmp_path, {"VETH": "m"}))
    assert "cannot be loaded" in found.cause and "boot the new one" in found.remedy


def test_a_module_that_is_loaded_and_yet_refused(tmp_path: Path) -> None:
    modules(tmp_path, "veth.ko")
    (tmp_path / "loaded/veth").mkdir(parents=True)
    assert diagnose("veth", kernel(tmp_path, {"VETH": "m"})).present


def test_built_in_and_yet_refused(tmp_path: Path) -> None:
    found = diagnose("veth", kernel(tmp_path, {"VETH": "y"}))
    assert found.present and "privileged" in found.remedy


def test_nothing_is_known(tmp_path: Path) -> None:
    found = diagnose("veth", kernel(tmp_path, None))
    assert "CONFIG_VETH" in found.cause and "modprobe veth" in found.remedy


def test_too_old(tmp_path: Path) -> None:
    found = diagnose("openat2", kernel(tmp_path, {}, (5, 4)))
    assert found == features.Diagnosis("Linux 6.1.0-13 is too old", "boot Linux 5.6 or newer")


def test_options_of_the_table_are_names() -> None:
    for feature in features.FEATURES.values():
        assert feature.options or feature.since > (0, 0)
        assert not any(option.startswith("CONFIG_") for option in feature.options)


def test_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert namespace_refusal(["network"], errno.EPERM) is None
    assert namespace_refusal(["network"], errno.EINVAL) is None  # the kernel has them
    monkeypatch.setattr(features, "_number", lambda path: 0 if "max_net_" in path else 100)
    found = namespace_refusal(["uts", "network"], errno.ENOSPC)
    assert found is not None and found.remedy == "`sysctl -w user.max_net_namespaces=10000`"
    monkeypatch.setattr(features, "_number", lambda path: 100)
    found = namespace_refusal(["network"], errno.ENOSPC)
    assert found is not None and "in use" in found.cause
