"""Flags and daemon.json: what is taken, what is refused, and in which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.daemon.main import main
from sampan.daemon.options import help_text
from sampan.daemon.settings import Settings, load_settings
from sampan.errors import SampanError
from sampan.network import AddressPool


def load(tmp_path: Path, *flags: str, **file: Any) -> Settings:
    path = tmp_path / "daemon.json"
    path.write_text(json.dumps({name.replace("_", "-"): value for name, value in file.items()}))
    return load_settings(["--config-file", str(path), *flags])


def test_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path)
    assert settings.hosts == ["unix:///run/sampan/sampan.sock"]
    assert settings.engine.data_root == Path("/var/lib/sampan")
    assert settings.bridge.name == "sampan0"
    assert settings.log_level == "info"


def test_flags_in_every_spelling(tmp_path: Path) -> None:
    settings = load(
        tmp_path, "-D", "--icc=false", "-H", "unix:///a.sock", "--host=unix:///b.sock", "-bbr7",
        "--mtu", "1400", "--default-ulimit",
        "nofile=10:20", "--log-opt", "max-size=1m", "--default-shm-size", "1g",
    )  # fmt: skip
    assert settings.log_level == "debug"
    assert settings.hosts == ["unix:///a.sock", "unix:///b.sock"]
    assert (settings.bridge.name, settings.bridge.mtu, settings.bridge.icc) == ("br7", 1400, False)
    assert settings.engine.default_ulimits[0].hard == 20
    assert settings.engine.log_opts == {"max-size": "1m"}
    assert settings.engine.default_shm_size == 1 << 30


def test_file(tmp_path: Path) -> None:
    limits = {"nofile": {"Name": "nofile", "Soft": 1, "Hard": 2}}
    settings = load(tmp_path, default_ulimits=limits, hosts=["unix:///c"], dns=["1.1.1.1"], live_restore=True)
    assert settings.hosts == ["unix:///c"]
    assert settings.engine.dns == ["1.1.1.1"]
    assert settings.engine.default_ulimits[0].soft == 1


def test_address_pools(tmp_path: Path) -> None:
    flags = (
        "--default-address-pool",
        "base=10.1.0.0/16,size=28",
        "--default-address-pool=base=10.2.0.0/16,size=24",
    )
    expected = (AddressPool("10.1.0.0/16", 28), AddressPool("10.2.0.0/16", 24))
    assert load(tmp_path, *flags).bridge.address_pools == expected
    file = [{"base": pool.base, "size": pool.size} for pool in expected]
    assert load(tmp_path, default_address_pools=file).bridge.address_pools == expected


@pytest.mark.parametrize(
    ("flags", "file", "said"),
    [
        (["--default-address-pool", "10.1.0.0/16"], {}, "expected base=CIDR,size=BITS"),
        ([], {"default_address_pools": [{"base": "10.1.0.0/16"}]}, "default-address-pools: expected a list"),
        ([], {"default_address_pools": [{"base": "10.1.0.1/16", "size": 24}]}, "invalid base '10.1.0.1/16'"),
        ([], {"default_address_pools": [{"base": "10.1.0.0/16", "size": 8}]}, "must be from 16 to 30"),
        (["--nonsense"], {}, "unknown flag: --nonsense"),
        (["-x"], {}, "unknown shorthand flag: 'x'"),
        (["--mtu"], {}, "flag needs an argument: --mtu"),
        (["--mtu", "big"], {}, "invalid argument 'big' for --mtu"),
        (["extra"], {}, "takes no arguments"),
        (["--userns-remap", "x"], {}, "--userns-remap is not offered"),
        ([], {"nonsense": 1}, "don't match any configuration option: nonsense"),
        ([], {"seccomp_profile": "x"}, "'seccomp-profile' is not offered"),
        ([], {"http_proxy": "http://p:1"}, "don't match any configuration option: http-proxy"),
        ([], {"proxies": {"ftp-proxy": "x"}}, "proxies: 'ftp-proxy' is none of"),
        (["--registry-mirror", "ftp://m"], {}, 'unsupported scheme "ftp"'),
        (["--registry-mirror", "https://u:p@m"], {}, "username/password not allowed in URI"),
        (["--insecure-registry", "10.0.0.0/40"], {}, "neither a host nor a CIDR"),
        (["--insecure-registry", "host:port"], {}, "expected host[:port] or a CIDR"),
        (["--max-concurrent-uploads", "0"], {}, "max-concurrent-uploads: must be at least 1"),
        (["--push-compression", "lzma"], {}, "'lzma' is none of gzip, zstd"),
        (["--https-proxy", "socks5://p"], {}, "only http:// and https:// proxies are offered"),
        ([], {"mtu": "1500"}, "mtu: expected a number"),
        (["--debug"], {"debug": False}, "both as a flag and in the configuration file: debug: (from flag: "
                                        "true, from file: false)"),
        (["-H", "tcp://0.0.0.0:2375"], {}, "--allow-plaintext-tcp"),
        (["-H", "tcp://0.0.0.0"], {}, "a port is missing"),
        (["-H", "ftp://x"], {}, "use unix://"),
        (["--tlsverify"], {}, "needs --tlscert"),
        (["--tlscacert", "ca.pem"], {}, "tlscacert: is of no use without --tlsverify, or --tls"),
        (["--exec-opt", "native.cgroupdriver=systemd"], {}, "systemd is not offered"),
        (["--log-level", "loud"], {}, "'loud' is none of"),
        (["--dns", "nowhere"], {}, "not an IP address"),
        (["--default-ulimit", "nofile=20:10"], {}, "above the hard one"),
        (["--data-root", "here"], {}, "must be an absolute path"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, flags: list[str], file: dict[str, Any], said: str) -> None:
    with pytest.raises(SampanError) as caught:
        load(tmp_path, *flags, **file)
    assert said in caught.value.message
    assert "\n" not in caught.value.message


def test_tls_without_a_host_is_dockers_port(tmp_path: Path) -> None:
    certificates = ("--tls", "--tlscert", "cert.pem", "--tlskey", "key.pem")
    assert load(tmp_path, *certificates).hosts == ["tcp://localhost:2376"]
    assert load(tmp_path, *certificates, "-H", "/s").hosts == ["unix:///s"]


def test_registries(tmp_path: Path) -> None:
    settings = load(
        tmp_path,
        "--insecure-registry=http://a.example:5000/",
        "--max-concurrent-uploads=2",
        registry_mirrors=["https://m.example"],
        proxies={"https-proxy": "http://p.example:3128", "no-proxy": "in.example"},
    )
    registry = settings.registry
    assert registry.insecure == ["a.example:5000"]
    assert registry.mirrors == ["https://m.example/"]
    assert registry.max_concurrent_uploads == 2
    assert registry.proxies.for_url("https://x.example/v2/") == "http://p.example:3128"
    assert registry.proxies.for_url("https://in.example/v2/") == ""


def test_exit_codes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--version"]) == 0
    assert main(["--help"]) == 0
    assert main(["--nonsense"]) == 125
    assert main(["--config-file", str(tmp_path / "none")]) == 1
    assert "no such configuration file" in capsys.readouterr().err
    assert "--shutdown-timeout" in help_text()
