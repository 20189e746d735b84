"""Credentials for registries, in config.json or with its helpers, and the headers that carry them.

`credHelpers` names a helper for one registry, `credsStore` one for all; without either, `auths` holds base64
of user and password. A helper is the program `docker-credential-NAME` with one of the words get, store,
erase: it reads a server or a JSON object and answers with JSON (github.com/docker/docker-credential-helpers).
"""

from __future__ import annotations

import binascii
import os

from sampan.cli import docker_config
from sampan.cli.failures import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INDEX_SERVER = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"
_NOT_FOUND = "credentials not found in native keychain"


def server_of(image: str) -> str:
    """The registry of an image name, as config.json calls it."""
    first, slash, _ = image.partition("/")
    is_domain = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    return first if is_domain and first not in ("docker.io", "index.docker.io") else INDEX_SERVER


def header_for(image: str) -> dict[str, str]:
    """The header `X-Registry-Auth` for a request about this image; without credentials it says so."""
    return {"X-Registry-Auth": encode(stored(server_of(image)))}


def encode(credentials: dict[str, str]) -> str:
    """Credentials as the Engine API wants them in a header: JSON in the URL alphabet of base64."""
    from sampan.cli.jsontext import dump

    data = binascii.b2a_base64(dump(credentials).encode("utf-8", "surrogateescape"), newline=False)
    return data.decode().replace("+", "-").replace("/", "_")


def stored(server: str) -> dict[str, str]:
    """The credentials for a registry, in the API's words; empty when there are none.

    A helper that fails counts as having none, and a warning tells of it.
    """
    config = docker_config.load()
    helper = helper_for(config, server)
    if helper:
        try:
            found = _ask(helper, server)
        except CommandError as error:
            from sampan.cli.app import warn

            warn(f"WARNING: {error.message}")
            found = {}
        return found
    auths = config.get("auths") or {}
    entry = auths.get(server)
    if entry is None:
        host = _host(server)
        entry = next((value for key, value in auths.items() if _host(key) == host), None)
    return _decoded(entry, server) if isinstance(entry, dict) else {}


def plain_entries() -> dict[str, dict[str, str]]:
    """All credentials that the user has, as `auths` of a config.json has them without helpers."""
    config = docker_config.load()
    servers = [*(config.get("auths") or {}), *(config.get("credHelpers") or {})]
    if config.get("credsStore"):
        servers += _listed(str(config["credsStore"]))
    found = {}
    for server in dict.fromkeys(servers):
        known = stored(server)
        entry = {key: known[key] for key in ("identitytoken", "registrytoken") if known.get(key)}
        if known.get("username"):
            pair = f"{known['username']}:{known.get('password', '')}"
            entry["auth"] = binascii.b2a_base64(pair.encode(), newline=False).decode()
        if entry:
            found[server] = entry
    return found


def _listed(helper: str) -> list[str]:
    """The servers that a helper knows; none when it cannot tell."""
    from sampan.cli.jsontext import parse

    code, output = _run(helper, "list", b"")
    try:
        return list(parse(output.encode())) if code == 0 else []
    except ValueError:
        return []


def store(credentials: dict[str, str]) -> str:
    """Keep credentials.

    Args:
        credentials: username, password, identitytoken, serveraddress.

    Returns:
        the path of the file that holds them in the clear, "" when a helper has them or they were there.

    Raises:
        CommandError: they could not be kept.
    """
    config = docker_config.load()
    server = credentials["serveraddress"]
    helper = helper_for(config, server)
    auths = config.setdefault("auths", {})
    if helper:
        token = credentials.get("identitytoken", "")
        _tell(
            helper,
            "store",
            {
                "ServerURL": server,
                "Username": _TOKEN_USER if token else credentials["username"],
                "Secret": token or credentials["password"],
            },
        )
        entry: dict[str, str] = {}
    else:
        pair = f"{credentials['username']}:{credentials.get('password', '')}"
        entry = {"auth": binascii.b2a_base64(pair.encode(), newline=False).decode()}
        if credentials.get("identitytoken"):
            entry["identitytoken"] = credentials["identitytoken"]
    if auths.get(server) == entry:
        return ""
    auths[server] = entry
    docker_config.save(config)
    return "" if helper else docker_config.path()


def erase(server: str) -> None:
    """Forget the credentials for a registry, under every spelling of its name.

    Raises:
        CommandError: a helper refuses.
    """
    config = docker_config.load()
    auths = config.get("auths") or {}
    host = _host(server)
    names = [server] if server == INDEX_SERVER else [server, host, f"http://{host}", f"https://{host}"]
    problem: CommandError | None = None
    for name in dict.fromkeys(names):
        helper = helper_for(config, name)
        if helper:
            try:
                _tell(helper, "erase", name)
            except CommandError as error:
                problem = problem or error
        auths.pop(name, None)
    if config:
        docker_config.save(config)
    if problem is not None:
        raise problem


def helper_for(config: dict[str, Any], server: str) -> str:
    """The helper that keeps this registry's credentials, "" for none."""
    helpers = config.get("credHelpers") or {}
    return str(helpers.get(server) or helpers.get(_host(server)) or config.get("credsStore") or "")


def _host(server: str) -> str:
    return server.split("://", 1)[-1].split("/", 1)[0]


def _decoded(entry: dict[str, Any], server: str) -> dict[str, str]:
    found = {"serveraddress": server}
    text = entry.get("auth")
    if text:
        try:
            user, colon, password = binascii.a2b_base64(text).decode().partition(":")
        except (ValueError, UnicodeDecodeError):
            colon = user = password = ""
        if not colon:
            raise CommandError(f"invalid auth configuration file: {docker_config.path()}: auth of {server}")
        found["username"], found["password"] = user, password.strip("\0")
    for key in ("username", "password", "identitytoken", "registrytoken"):
        if entry.get(key):
            found[key] = entry[key]
    return found if len(found) > 1 else {}


# --- helpers ---


def _ask(helper: str, server: str) -> dict[str, str]:
    from sampan.cli.jsontext import parse

    code, output = _run(helper, "get", server.encode())
    if code != 0:
        if _NOT_FOUND in output:
            return {}
        raise CommandError(f"error getting credentials - err: exit status {code}, out: `{output}`")
    try:
        answer = parse(output.encode())
        user, secret = str(answer.get("Username") or ""), str(answer.get("Secret") or "")
    except (ValueError, AttributeError):
        raise CommandError(f"error getting credentials: docker-credential-{helper} answers no JSON") from None
    if user == _TOKEN_USER:
        return {"identitytoken": secret, "serveraddress": server}
    return {"username": user, "password": secret, "serveraddress": server} if user else {}


def _tell(helper: str, word: str, value: dict[str, str] | str) -> None:
    from sampan.cli.jsontext import dump

    text = value if isinstance(value, str) else dump(value)
    doing = {"store": "storing", "erase": "erasing"}[word]
    try:
        code, output = _run(helper, word, text.encode("utf-8", "surrogateescape"))
    except CommandError as error:
        raise CommandError(f"error {doing} credentials - err: {error.message}, out: ``") from None
    if code != 0 and not (word == "erase" and _NOT_FOUND in output):
        raise CommandError(f"error {doing} credentials - err: exit status {code}, out: `{output}`")


def _run(helper: str, word: str, data: bytes) -> tuple[int, str]:
    """Run a helper; its exit status and its standard output. Its standard error is the user's."""
    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise CommandError(f"invalid credential helper name {helper!r}")
    our_in, its_in = os.pipe2(os.O_CLOEXEC)[::-1]
    its_out, our_out = os.pipe2(os.O_CLOEXEC)[::-1]
    try:
        pid = os.posix_spawnp(
            program,
            [program, word],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, its_in, 0), (os.POSIX_SPAWN_DUP2, its_out, 1)],
        )
    except OSError:
        for fd in (our_in, our_out):
            os.close(fd)
        raise CommandError(f'exec: "{program}": executable file not found in $PATH') from None
    finally:
        os.close(its_in)
        os.close(its_out)
    try:
        os.write(our_in, data + b"\n")
    except BrokenPipeError:
        pass  # it did not want to read; its answer tells
    os.close(our_in)
    parts = []
    while piece := os.read(our_out, 65536):
        parts.append(piece)
    os.close(our_out)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), b"".join(parts).decode("utf-8", "replace").strip()
