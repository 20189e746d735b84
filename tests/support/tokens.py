"""A token server for real registries: Docker's token authentication, as auth.docker.io does it.

    with TokenServer(directory) as tokens, Registry(directory, tokens=tokens.options()) as registry: …

USER with PASSWORD may do everything; anonymous clients may pull what is below `public/`. What it was asked is
in `asked`. A refresh token (identity token) is given for `offline_token=true` and taken by POST.
"""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from support.registry import PASSWORD, USER, Authority

SERVICE, ISSUER, REFRESH = "sampan test registry", "sampan test issuer", "a refresh token"


class TokenServer:
    """The server.

    Args:
        directory: for its key and certificate.
        life_s: how long its tokens are good.
    """

    def __init__(self, directory: Path, life_s: int = 300) -> None:
        self.authority = Authority(directory / "issuer")
        self.certificate, self._key = self.authority.issue("issuer", "DNS:issuer.example")
        self.life_s = life_s
        self.asked: list[dict[str, Any]] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                owner.answer(self, query, self.headers.get("Authorization", ""))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = parse_qs(body)
                form["scope"] = form.get("scope", [""])[0].split()
                owner.answer(self, form, "")

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/token"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def options(self) -> dict[str, str]:
        """What the registry's configuration says about us."""
        return {
            "realm": self.url,
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(self.authority.certificate),
        }

    def answer(self, handler: Any, query: dict[str, list[str]], authorization: str) -> None:
        """One request for a token."""
        proof = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        known = authorization == f"Basic {proof}" or query.get("refresh_token") == [REFRESH]
        scopes = query.get("scope", [])
        self.asked.append({"method": handler.command, "scopes": scopes, "known": known})
        if query.get("service") != [SERVICE]:
            return _send(handler, 400, {"details": "unknown service"})
        if (authorization or "refresh_token" in query) and not known:
            return _send(handler, 401, {"details": "incorrect username or password"})
        value: dict[str, Any] = {"token": self.token(scopes, known), "expires_in": self.life_s}
        if known and query.get("offline_token") == ["true"]:
            value["refresh_token"] = REFRESH
        if handler.command == "POST":
            value["access_token"] = value.pop("token")
        return _send(handler, 200, value)

    def token(self, scopes: list[str], known: bool) -> str:
        """A signed token for as much of the scopes as is granted."""
        import jwt

        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            wanted = actions.split(",")
            granted = wanted if known else ["pull"] if name.startswith("public/") else []
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": USER if known else "",
            "aud": SERVICE,
            "iat": now,
            "nbf": now - 5,
            "exp": now + self.life_s,
            "jti": str(len(self.asked)),
            "access": access,
        }
        lines = self.certificate.read_text().splitlines()
        chain = "".join(line for line in lines if "-----" not in line)
        return jwt.encode(claims, self._key.read_text(), "ES256", {"x5c": [chain]})

    def __enter__(self) -> TokenServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _send(handler: Any, status: int, value: dict[str, Any]) -> None:
    body = json.dumps(value).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
