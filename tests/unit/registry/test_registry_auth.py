"""Credentials in Docker's headers, challenges, tokens."""

import base64
import json

import pytest

from sampan.errors import InvalidParameter
from sampan.registry import Credentials, InvalidAnswer, RegistryUnauthorized
from sampan.registry.auth import Authorizer, Challenge, TokenAnswer, TokenCache, parse_challenges
from sampan.registry.credentials import from_config_header, registry_of


def header(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def test_auth_header():
    value = {"username": "a", "password": "p?>~ö", "serveraddress": "r.example"}
    wanted = Credentials("a", "p?>~ö", server="r.example")
    assert Credentials.from_header(header(value)) == wanted
    assert Credentials.from_header(header(value).rstrip("=")) == wanted
    assert Credentials.from_header(base64.b64encode(json.dumps(value).encode()).decode()) == wanted
    assert Credentials.from_header(header({"auth": base64.b64encode(b"a:b:c").decode()})).password == "b:c"
    assert not Credentials.from_header("")
    assert not Credentials.from_header(header({}))
    assert Credentials.from_header(header({"identitytoken": "t"})).identity_token == "t"
    assert "secret" not in repr(Credentials("a", "secret", "secret", "secret"))


@pytest.mark.parametrize("text", ["%%%", "bm90IGpzb24=", header([1]), header({"username": 1})])
def test_auth_header_refusals(text):
    with pytest.raises(InvalidParameter):
        Credentials.from_header(text)


def test_config_header():
    found = from_config_header(
        header({"https://index.docker.io/v1/": {"username": "a"}, "r:5000": {"username": "b"}})
    )
    assert {name: item.username for name, item in found.items()} == {"docker.io": "a", "r:5000": "b"}


@pytest.mark.parametrize(
    ("server", "registry"),
    [
        ("https://index.docker.io/v1/", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("", "docker.io"),
        ("https://r.example:5000/v2/", "r.example:5000"),
    ],
)
def test_registry_of(server, registry):
    assert registry_of(server) == registry


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            'Bearer realm="https://t/token",service="s",scope="repository:a/b:pull,push"',
            [Challenge("bearer", "https://t/token", "s", "repository:a/b:pull,push")],
        ),
        ('Basic realm="x, y=\\"z\\""', [Challenge("basic", 'x, y="z"')]),
        ('basic realm=plain, BEARER Realm = "r"', [Challenge("basic", "plain"), Challenge("bearer", "r")]),
        ("Negotiate, Basic realm=x", [Challenge("negotiate"), Challenge("basic", "x")]),
        ("", []),
        ('"', []),
        ("," * 100_000, []),
    ],
)
def test_challenges(text, found):
    assert parse_challenges(text) == found


class Server:
    """A token server that writes down what it is asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, method, url, headers, form):
        self.asked.append((method, url, headers, form))
        return self.answers.pop(0)


def good(token="tok", **more):
    return TokenAnswer(200, {"token": token, **more}, "")


SCOPES = ("repository:a/b:pull",)
URL = "https://r.example/v2/a/b/manifests/x"
BEARER = 'Bearer realm="https://t.example/token",service="s"'


def challenged(credentials, server, header=BEARER):
    authorizer = Authorizer(credentials, TokenCache(), server)
    assert authorizer.header(SCOPES, URL) == ""
    assert authorizer.challenged(header, SCOPES, URL, "")
    return authorizer


def test_anonymous_token_is_kept():
    server = Server(good())
    authorizer = challenged(Credentials(), server)
    assert authorizer.header(SCOPES, URL) == authorizer.header(SCOPES, URL) == "Bearer tok"
    assert server.asked == [
        ("GET", "https://t.example/token?service=s&scope=repository%3Aa%2Fb%3Apull", {}, None)
    ]


def test_each_scope_has_its_token():
    authorizer = challenged(Credentials(), Server(good("a"), good("b")))
    assert authorizer.header(SCOPES, URL) == "Bearer a"
    assert authorizer.header(("repository:c:pull",), URL) == "Bearer b"


def test_token_with_password():
    server = Server(good())
    authorizer = challenged(Credentials("u", "p"), server)
    assert authorizer.header(SCOPES, URL) == "Bearer tok"
    assert "account=u" in server.asked[0][1]
    assert server.asked[0][2] == {"Authorization": "Basic " + base64.b64encode(b"u:p").decode()}


def test_identity_token_is_posted():
    server = Server(TokenAnswer(200, {"access_token": "acc", "expires_in": 300}, ""))
    assert challenged(Credentials(identity_token="id"), server).header(SCOPES, URL) == "Bearer acc"
    method, url, _, form = server.asked[0]
    assert (method, url) == ("POST", "https://t.example/token")
    assert b"grant_type=refresh_token" in form
    assert b"refresh_token=id" in form


def test_registry_token_is_sent_as_it_is():
    authorizer = challenged(Credentials(registry_token="mine"), Server())
    assert authorizer.header(SCOPES, URL) == "Bearer mine"
    assert not authorizer.challenged(BEARER, SCOPES, URL, "Bearer mine")


def test_expired_token_is_fetched_again(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    authorizer = challenged(Credentials(), Server(good("a", expires_in=300), good("b")))
    assert authorizer.header(SCOPES, URL) == "Bearer a"
    now[0] += 280
    assert authorizer.header(SCOPES, URL) == "Bearer a"
    now[0] += 11
    assert authorizer.header(SCOPES, URL) == "Bearer b"


def test_refused_token_is_fetched_again():
    authorizer = challenged(Credentials(), Server(good("a"), good("b")))
    assert authorizer.header(SCOPES, URL) == "Bearer a"
    assert authorizer.challenged(BEARER, SCOPES, URL, "Bearer a")
    assert authorizer.header(SCOPES, URL) == "Bearer b"


def test_basic_is_sent_once():
    authorizer = challenged(Credentials("u", "p"), Server(), "Basic realm=x")
    sent = authorizer.header(SCOPES, URL)
    assert sent.startswith("Basic ")
    assert not authorizer.challenged("Basic realm=x", SCOPES, URL, sent)
    assert not Authorizer(Credentials(), TokenCache(), Server()).challenged("Basic", SCOPES, URL, "")


def test_credentials_do_not_leave_tls():
    server = Server(good())
    authorizer = challenged(Credentials("u", "p"), server, 'Bearer realm="http://t.example/token"')
    with pytest.raises(RegistryUnauthorized, match="without TLS"):
        authorizer.header(SCOPES, URL)
    assert server.asked == []


@pytest.mark.parametrize("realm", ["ftp://t/x", "https://user:pw@t/x", "https:///x", "x"])
def test_realms_that_are_no_addresses(realm):
    with pytest.raises(InvalidAnswer):
        challenged(Credentials("u", "p"), Server(), f'Bearer realm="{realm}"').header(SCOPES, URL)


@pytest.mark.parametrize("value", [{}, {"token": 1}, {"token": "a\r\nX: y"}, {"token": "x" * 100_000}])
def test_tokens_that_are_none(value):
    with pytest.raises(InvalidAnswer, match="did not include a token"):
        challenged(Credentials(), Server(TokenAnswer(200, value, ""))).header(SCOPES, URL)


def test_refused_password():
    server = Server(TokenAnswer(401, {}, "incorrect username or password"))
    with pytest.raises(RegistryUnauthorized, match="incorrect username or password"):
        challenged(Credentials("u", "x"), server).header(SCOPES, URL)
