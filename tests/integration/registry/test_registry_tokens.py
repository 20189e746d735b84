"""Bearer tokens against a real registry that believes a token server."""

import io
import os
import time

import pytest

from sampan.oci.reference import parse
from sampan.registry import Credentials, Registries, RegistryConfig, RegistryUnauthorized
from support.registry import PASSWORD, USER, Registry, digest_of
from support.tokens import REFRESH, TokenServer

ME = Credentials(USER, PASSWORD)
IDENTITY = Credentials(identity_token=REFRESH)


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    with TokenServer(tmp_path_factory.mktemp("tokens")) as server:
        yield server


@pytest.fixture(scope="module")
def registry(tmp_path_factory, tokens):
    with Registry(tmp_path_factory.mktemp("registry"), tokens=tokens.options()) as started:
        yield started


@pytest.fixture
def registries():
    return Registries(RegistryConfig(certs_directories=(), retry_delay_s=0.05))


@pytest.fixture(autouse=True)
def forget(tokens):
    tokens.asked.clear()


def put(registries, registry, name, data, credentials=ME):
    repository = registries.repository(parse(f"{registry.host}/{name}"), credentials, ("pull", "push"))
    repository.uploads.upload(digest_of(data), len(data), lambda: io.BytesIO(data))
    return repository


@pytest.mark.parametrize("credentials", [ME, IDENTITY], ids=["password", "identity token"])
def test_push_with_one_token(registries, registry, tokens, credentials):
    repository = put(registries, registry, "mine", os.urandom(100), credentials)
    assert repository.has_blob(digest_of(b"no")) is False
    (asked,) = tokens.asked
    assert asked["scopes"] == ["repository:mine:pull,push"]
    assert asked["method"] == ("GET" if credentials is ME else "POST")


def test_tokens_are_shared_by_repositories_of_a_daemon(registries, registry, tokens):
    for _ in range(3):
        put(registries, registry, "mine", os.urandom(100))
    assert len(tokens.asked) == 1


def test_mount_asks_for_both_repositories(registries, registry, tokens):
    data = os.urandom(100)
    put(registries, registry, "here", data)
    there = registries.repository(parse(f"{registry.host}/there"), ME, ("pull", "push"))
    assert there.uploads.mount(digest_of(data), "here")
    assert tokens.asked[-1]["scopes"] == ["repository:there:pull,push", "repository:here:pull"]


def test_anonymous(registries, registry, tokens):
    put(registries, registry, "public/boat", b"data")
    put(registries, registry, "mine", b"data")
    public = registries.repository(parse(f"{registry.host}/public/boat"))
    assert public.has_blob(digest_of(b"data"))
    assert not tokens.asked[-1]["known"]
    with pytest.raises(RegistryUnauthorized):
        registries.repository(parse(f"{registry.host}/mine")).has_blob(digest_of(b"data"))
    with pytest.raises(RegistryUnauthorized, match="unauthorized: authentication required"):
        put(registries, registry, "public/boat", b"other", Credentials())


def test_wrong_password(registries, registry):
    with pytest.raises(RegistryUnauthorized, match="incorrect username or password"):
        put(registries, registry, "mine", b"x", Credentials(USER, "wrong"))


def test_tokens_that_expire(registry, registries, tokens):
    """A long push outlives its token."""
    tokens.life_s = 2
    try:
        repository = put(registries, registry, "mine", b"1")
        for number in range(5):
            repository.uploads.upload(digest_of(b"%d" % number), 1, lambda n=number: io.BytesIO(b"%d" % n))
            time.sleep(0.6)
        assert 2 <= len(tokens.asked) <= 6
    finally:
        tokens.life_s = 300


def test_login_gives_an_identity_token(registries, registry):
    assert registries.log_in(Credentials(USER, PASSWORD, server=registry.host)) == REFRESH
    with pytest.raises(RegistryUnauthorized, match="incorrect username or password"):
        registries.log_in(Credentials(USER, "wrong", server=registry.host))
