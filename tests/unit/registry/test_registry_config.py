"""Settings: what counts as insecure, which proxy, which addresses a registry has."""

from pathlib import Path

import pytest

from sampan.registry import InvalidRegistryConfig, Proxies, RegistryConfig
from sampan.registry.hosts import endpoints


@pytest.mark.parametrize(
    ("host", "insecure"),
    [
        ("127.0.0.1:5000", True),
        ("127.8.9.1", True),
        ("[::1]:5000", True),
        ("localhost", True),
        ("localhost:5000", True),
        ("10.1.2.3:80", True),
        ("a.test", True),
        ("a.test:5000", True),
        ("b.test:5000", True),
        ("b.test:5001", False),
        ("192.0.2.1", False),
        ("[2001:db8::1]:443", False),
    ],
)
def test_insecure(host, insecure, monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [])
    config = RegistryConfig(insecure=["10.0.0.0/8", "a.test", "b.test:5000"])
    assert config.is_insecure(host) is insecure


def test_a_name_is_insecure_when_its_address_is(monkeypatch):
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("10.9.9.9", 0))])
    assert RegistryConfig(insecure=["10.0.0.0/8"]).is_insecure("c.test:5000")


@pytest.mark.parametrize(
    ("url", "proxied"),
    [
        ("https://registry.example/v2/", True),
        ("http://registry.example/v2/", False),  # no http proxy
        ("https://localhost:5000/v2/", False),
        ("https://127.0.0.1:5000/v2/", False),
        ("https://inside.example/v2/", False),
        ("https://deep.inside.example/v2/", False),
        ("https://notinside.example/v2/", True),
        ("https://a.suffix.example/v2/", False),
        ("https://suffix.example/v2/", True),
        ("https://10.2.3.4/v2/", False),
        ("https://11.2.3.4/v2/", True),
        ("https://port.example:5000/v2/", False),
        ("https://port.example:5001/v2/", True),
    ],
)
def test_proxies(url, proxied):
    proxies = Proxies(
        https="http://proxy.example:3128",
        no_proxy="inside.example, .suffix.example,10.0.0.0/8,port.example:5000",
    )
    assert bool(proxies.for_url(url)) is proxied


def test_proxies_of_the_environment_give_way_to_settings():
    proxies = Proxies.from_environment(
        {"HTTPS_PROXY": "http://a", "http_proxy": "b:80", "NO_PROXY": "*"}, https="http://c", no_proxy="x"
    )
    assert proxies == Proxies("b:80", "http://c", "x")
    assert proxies.for_url("http://somewhere.example/") == "http://b:80"
    assert Proxies("http://user:pw@p").shown()[0] == "http://xxxxx:xxxxx@p"


def config_in(directory: Path, **files: str) -> RegistryConfig:
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return RegistryConfig(certs_directories=(directory,))


def test_hub_and_its_mirrors(tmp_path):
    config = RegistryConfig(mirrors=["http://m.example:5000", "https://n.example/cache/"])
    config.certs_directories = (tmp_path,)
    found = endpoints("docker.io", config)
    assert [item.url for item in found] == [
        "http://m.example:5000/v2",
        "https://n.example/cache/v2",
        "https://registry-1.docker.io/v2",
    ]
    assert [item.is_origin for item in found] == [False, False, True]
    assert "push" not in found[0].capabilities
    assert endpoints("ghcr.io", config)[0].url == "https://ghcr.io/v2"  # mirrors are the Hub's


HOSTS = """
server = "https://origin.example"
ca = "own.pem"

[host."https://mirror.example/base"]
  capabilities = ["pull", "resolve"]
  skip_verify = true
  dial_timeout = "3s"
  [host."https://mirror.example/base".header]
    x-key = ["a", "b"]

[host."http://plain.example:5000/proxy/hub"]
  capabilities = ["pull"]
  override_path = true
  client = [["c.cert", "c.key"]]
"""


def test_hosts_toml(tmp_path):
    config = config_in(tmp_path, **{"r.example__hosts.toml": HOSTS})
    mirror, plain, origin = endpoints("r.example", config)
    assert mirror.url == "https://mirror.example/base/v2"
    assert mirror.capabilities == {"pull", "resolve"}
    assert not mirror.tls.verify
    assert mirror.headers == (("x-key", "a, b"),)
    assert mirror.connect_timeout_s == 3
    assert (mirror.namespace, mirror.is_origin) == ("r.example", False)
    assert plain.url == "http://plain.example:5000/proxy/hub"
    assert plain.tls.client == ((tmp_path / "r.example/c.cert", tmp_path / "r.example/c.key"),)
    assert origin.url == "https://origin.example/v2"
    assert origin.tls.authorities == (tmp_path / "r.example/own.pem",)
    assert origin.is_origin


def test_hosts_toml_for_all_others(tmp_path):
    config = config_in(tmp_path, **{"_default__hosts.toml": '[host."https://all.example"]\n'})
    mirror, origin = endpoints("some.example", config)
    assert (mirror.url, mirror.namespace) == ("https://all.example/v2", "some.example")
    assert origin.url == "https://some.example/v2"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("server = 1", "server must be a text"),
        ("skip_verify = 'yes'", "skip_verify must be true or false"),
        ("[host.'ftp://x']", "is not an address of a registry"),
        ("[host.'https://x']\ncapabilities = ['fly']", "capabilities must be of pull, push, resolve"),
        ("[host.'https://x']\nskip = true", "unknown key 'skip'"),
        ("[host.'https://x']\ndial_timeout = 'soon'", "must be a duration"),
        ("[host", "cannot be read"),
    ],
)
def test_hosts_toml_refusals(tmp_path, text, said):
    server = "" if text.startswith("server") else "server = 'https://o.example'\n"
    config = config_in(tmp_path, **{"r.example__hosts.toml": server + text})
    with pytest.raises(InvalidRegistryConfig, match=said):
        endpoints("r.example", config)


def test_docker_certificates(tmp_path):
    config = config_in(
        tmp_path,
        **{"r.example:5000__a.crt": "", "r.example:5000__b.cert": "", "r.example:5000__b.key": ""},
    )
    (only,) = endpoints("r.example:5000", config)
    directory = tmp_path / "r.example:5000"
    assert only.tls.authorities == (directory / "a.crt",)
    assert only.tls.client == ((directory / "b.cert", directory / "b.key"),)
    (directory / "b.key").unlink()
    with pytest.raises(InvalidRegistryConfig, match=r"missing key b\.key for client certificate b\.cert"):
        endpoints("r.example:5000", config)
