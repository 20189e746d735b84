"""The words of `--docker host=…,ca=…` to an endpoint and its TLS files."""

from __future__ import annotations

import os

from sampan.cli.contexts import store
from sampan.cli.failures import CommandError
from sampan.cli.hosts import DEFAULT_CONTEXT, Host, default_tls, default_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.cli.flags import Values

_FILES = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
_KEYS = ("from", "host", *_FILES, "skip-tls-verify")
_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")
DEFAULT_DESCRIPTION = "Current DOCKER_HOST based configuration"


def default_context(options: Values) -> store.Context:
    """The context `default`, which is not in the store: what flags and environment say."""
    url = default_url(options)
    tls = default_tls(options) if Host(url).address is not None else None
    endpoint = {"Host": url, "SkipTLSVerify": tls is not None and not tls.verify}
    names = [name for name in _FILES.values() if name in _default_files(options)]
    return store.Context(
        DEFAULT_CONTEXT, {}, {store.ENDPOINT: endpoint}, {store.ENDPOINT: names} if names else {}
    )


def _default_files(options: Values) -> dict[str, str]:
    tls = default_tls(options) if Host(default_url(options)).address is not None else None
    if tls is None:
        return {}
    paths = {"ca.pem": tls.ca, "cert.pem": tls.cert, "key.pem": tls.key}
    return {name: path for name, path in paths.items() if path and os.path.exists(path)}


def found(name: str, options: Values) -> store.Context:
    """The context of that name, `default` too."""
    return default_context(options) if name == DEFAULT_CONTEXT else store.load(name)


def tls_of(name: str, options: Values) -> dict[str, dict[str, bytes]]:
    """The TLS files of a context, `default` too."""
    if name != DEFAULT_CONTEXT:
        return store.tls_data(name)
    files = {one: store.read_file(path) for one, path in _default_files(options).items()}
    return {store.ENDPOINT: files} if files else {}


def endpoint(config: dict[str, str], options: Values) -> tuple[dict[str, Any], dict[str, bytes]]:
    """An endpoint and its TLS files.

    Raises:
        CommandError: an unknown key, a file that cannot be read, an address that is none.
    """
    for key in sorted(config):
        if key not in _KEYS:
            raise CommandError(f"unrecognized config key: {key}")
    if config.get("from"):
        origin = found(config["from"], options)
        if store.ENDPOINT not in origin.endpoints:
            raise CommandError(
                f'unable to get endpoint from context "{config["from"]}": no {store.ENDPOINT} endpoint'
            )
        return dict(origin.endpoints[store.ENDPOINT]), tls_of(origin.name, options).get(store.ENDPOINT, {})
    skip = config.get("skip-tls-verify", "")
    if skip and skip not in (*_TRUE, *_FALSE):
        raise CommandError(f'skip-tls-verify: parsing "{skip}": invalid syntax')
    files = {name: store.read_file(config[key]) for key, name in _FILES.items() if config.get(key)}
    host = config.get("host", "")
    if host:
        if "://" not in host:
            raise CommandError(
                f"unable to apply docker endpoint options: unable to parse docker host `{host}`"
            )
        try:
            Host(host)
        except CommandError as error:
            raise CommandError(f"unable to apply docker endpoint options: {error.message}") from None
    if host.startswith("tcp://"):
        _check_tls(config, files)
    made: dict[str, Any] = {"Host": host} if host else {}
    return {**made, "SkipTLSVerify": skip in _TRUE}, files


def _check_tls(config: dict[str, str], files: dict[str, bytes]) -> None:
    """Refuse certificates and keys that TLS could not use."""
    import ssl

    wrong = "invalid docker endpoint options: failed to retrieve context tls info"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if "ca.pem" in files:
        try:
            context.load_verify_locations(cadata=files["ca.pem"].decode("ascii"))
        except (ssl.SSLError, ValueError):
            raise CommandError(f"{wrong}: ca.pem seems invalid") from None
    if "cert.pem" in files and "key.pem" in files:
        try:
            context.load_cert_chain(config["cert"], config["key"], lambda: b"")
        except (ssl.SSLError, OSError) as error:
            raise CommandError(f"{wrong}: tls: {getattr(error, 'reason', None) or error}") from None


def pairs(given: list[str]) -> dict[str, str]:
    """The `key=value` words of --docker; a later one replaces an earlier."""
    return {name: value for name, _, value in (one.partition("=") for one in given)}
