"""Docker's token authentication: challenges, claims, keys by chain and by name."""

from __future__ import annotations

import asyncio
import base64
import datetime
import time

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sampan.errors import InvalidParameter
from sampan.registry.server.access import CATALOG, Passwords, Wanted
from sampan.registry.server.faults import Unauthorized
from sampan.registry.server.tokens import Tokens, TokenSettings, key_ids

PULL = Wanted("repository", "team/app", "pull")
PUSH = Wanted("repository", "team/app", "push")
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def certify(key, name, issuer=None, issuer_key=None, authority=False, start=NOW - DAY, end=NOW + DAY):
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    return builder.sign(issuer_key or key, hashes.SHA256())


def chain(*certificates):
    return [base64.b64encode(one.public_bytes(serialization.Encoding.DER)).decode() for one in certificates]


class World:
    """An authority, a signer below it, and a guard that believes the authority."""

    def __init__(self, directory):
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.root = certify(self.root_key, "root", authority=True)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = certify(self.key, "signer", self.root, self.root_key)
        bundle = directory / "bundle.pem"
        bundle.write_bytes(self.root.public_bytes(serialization.Encoding.PEM))
        self.guard = Tokens(TokenSettings("https://auth.example/token", "registry.example", "issuer", bundle))

    def token(self, access=(), headers=None, key=None, algorithm="ES256", **claims):
        values = {
            "iss": "issuer", "aud": "registry.example", "sub": "somebody",
            "exp": time.time() + 300, "nbf": time.time() - 10, "access": access, **claims,
        }  # fmt: skip
        values = {name: value for name, value in values.items() if value is not None}
        return jwt.encode(values, key or self.key, algorithm, headers or {"x5c": chain(self.certificate)})

    def check(self, token, *wanted):
        return asyncio.run(self.guard.check(f"Bearer {token}", list(wanted)))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("tokens"))


def grant(*actions, name="team/app"):
    return {"type": "repository", "name": name, "actions": list(actions)}


def test_challenge(world):
    for authorization in ("", "Basic eDp5", "Bearer", "Bearer "):
        with pytest.raises(Unauthorized) as caught:
            asyncio.run(world.guard.check(authorization, [PULL, PUSH]))
        assert caught.value.headers["WWW-Authenticate"] == (
            'Bearer realm="https://auth.example/token",service="registry.example",'
            'scope="repository:team/app:pull,push"'
        )
    with pytest.raises(Unauthorized) as caught:
        asyncio.run(world.guard.check("", []))
    assert "scope" not in caught.value.headers["WWW-Authenticate"]


def test_what_is_granted(world):
    token = world.token([grant("pull"), {"type": "registry", "name": "catalog", "actions": ["*"]}])
    access = world.check(token, PULL, CATALOG)
    assert access.user == "somebody"
    assert access.allows(PULL)
    assert not access.allows(PUSH)
    with pytest.raises(Unauthorized) as caught:
        world.check(token, PULL, PUSH)
    assert 'error="insufficient_scope"' in caught.value.headers["WWW-Authenticate"]
    assert world.check(world.token([grant("*")]), PULL, PUSH)
    with pytest.raises(Unauthorized):
        world.check(world.token([grant("pull", name="other/app")]), PULL)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": time.time() - 100}, {"nbf": time.time() + 1000}, {"iss": "another"}, {"aud": "another"},
        {"exp": None}, {"iss": None}, {"aud": None}, {"exp": "soon"},
    ],
    ids=["ended", "not begun", "iss", "aud", "no exp", "no iss", "no aud", "exp is a word"],
)  # fmt: skip
def test_claims_that_do_not_hold(world, claims):
    with pytest.raises(Unauthorized) as caught:
        world.check(world.token([grant("pull")], **claims), PULL)
    assert 'error="invalid_token"' in caught.value.headers["WWW-Authenticate"]


@pytest.mark.parametrize("access", [None, "all", [5], [{"type": "repository"}], [grant(5, None)], {"a": 1}])
def test_access_of_another_form_grants_nothing(world, access):
    token = world.token(access)
    assert world.check(token).allows(PULL) is False


def test_audience_in_a_list(world):
    assert world.check(world.token([grant("pull")], aud=["x", "registry.example"]), PULL)


def test_keys(world, tmp_path):
    other = ec.generate_private_key(ec.SECP256R1())
    middle_key = ec.generate_private_key(ec.SECP256R1())
    middle = certify(middle_key, "middle", world.root, world.root_key, authority=True)
    below = certify(other, "below", middle, middle_key)
    plain = certify(middle_key, "middle", world.root, world.root_key)  # no authority
    old = certify(other, "old", world.root, world.root_key, start=NOW - 3 * DAY, end=NOW - 2 * DAY)
    own = certify(other, "signer")  # by itself
    good = [
        (world.root_key, {"x5c": chain(world.root)}),
        (other, {"x5c": chain(below, middle)}),
        (world.root_key, {"kid": key_ids(world.root)[0]}),
        (world.root_key, {"kid": key_ids(world.root)[1]}),
    ]
    for key, headers in good:
        assert world.check(world.token([grant("pull")], headers, key), PULL)
    bad = [
        (other, {"x5c": chain(world.certificate)}),  # signed by another key than the one shown
        (other, {"x5c": chain(own)}),
        (other, {"x5c": chain(own, world.root)}),
        (other, {"x5c": chain(below)}),  # the one in between is missing
        (other, {"x5c": chain(certify(other, "x", plain, middle_key), plain)}),
        (other, {"x5c": chain(old)}),
        (other, {"x5c": ["!!!"]}), (other, {"x5c": "x"}), (other, {"x5c": [5]}), (other, {"x5c": []}),
        (other, {"x5c": chain(below) * 20}),
        (other, {"kid": key_ids(world.root)[0]}), (other, {"kid": "unknown"}), (other, {}),
    ]  # fmt: skip
    for key, headers in bad:
        with pytest.raises(Unauthorized, match="invalid token"):
            world.check(world.token([grant("pull")], headers or {"typ": "JWT"}, key), PULL)


def test_other_algorithms(world):
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate = certify(key, "rsa", world.root, world.root_key)
    headers = {"x5c": chain(certificate)}
    assert world.check(world.token([grant("pull")], headers, key, "RS256"), PULL)
    # The public key as a shared secret, and no signature at all.
    secret = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    with pytest.raises(Unauthorized):
        world.check(world.token([grant("pull")], headers, secret.hex(), "HS256"), PULL)
    with pytest.raises(Unauthorized):
        world.check(jwt.encode({"access": [grant("pull")]}, None, "none", headers), PULL)


@pytest.mark.parametrize("token", ["x", "a.b.c", "." * 3, "e30.e30.e30", "x" * 100_000])
def test_what_is_no_token(world, token):
    with pytest.raises(Unauthorized):
        world.check(token, PULL)


def test_bundles_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").write_text("nothing")
    for path in (tmp_path / "empty", tmp_path / "missing"):
        with pytest.raises(InvalidParameter, match=path.name):
            Tokens(TokenSettings("https://x", "y", "z", path))


def test_htpasswd_that_cannot_be_used(tmp_path):
    for text, expected in (
        ("user", "line 1: expected user:hash"),
        ("a:{SHA}x", "htpasswd -B"),
        (":x", "line 1"),
    ):
        (tmp_path / "htpasswd").write_text(text)
        with pytest.raises(InvalidParameter, match=expected):
            Passwords(tmp_path / "htpasswd", "realm")
    with pytest.raises(InvalidParameter, match="No such file"):
        Passwords(tmp_path / "missing", "realm")


def test_long_passwords(tmp_path):
    """bcrypt looks at 72 bytes; what htpasswd made of a longer one is still right."""
    import bcrypt

    stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"user:{stored}\n")
    guard = Passwords(tmp_path / "htpasswd", "realm")
    text = base64.b64encode(b"user:" + b"x" * 100).decode()
    assert asyncio.run(guard.check(f"Basic {text}", [])).user == "user"
