"""Git repositories that tests make, and HTTP servers that have them."""

from __future__ import annotations

import contextlib
import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

NOBODY = {
    **dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "somebody"),
    **dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "somebody@example.org"),
}


def git(directory: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-c", "protocol.file.allow=always", "-c", "init.defaultBranch=trunk", *words],
        cwd=directory,
        env={**os.environ, **NOBODY, "HOME": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def commit(directory: Path, **files: str) -> str:
    """Commit files; the commit's id."""
    directory.mkdir(exist_ok=True)
    if not (directory / ".git").exists():
        git(directory, "init", "-q")
    for name, text in files.items():
        place = directory / name.replace("__", "/")
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    git(directory, "add", "-A")
    git(directory, "commit", "-qm", "x")
    return git(directory, "rev-parse", "HEAD")


@contextlib.contextmanager
def over_http(base: Path) -> Iterator[tuple[str, str]]:
    """Serve the repositories below a directory; the URLs of two servers of HTTP.

    The first speaks Git's own protocol (git-http-backend(1)); the second only has files, as they are once git
    update-server-info(1) has been called.
    """

    class Speaking(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            environment = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(base),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_LENGTH": str(len(body)),
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            }
            answer = subprocess.run(
                ["git", "http-backend"], input=body, env=environment, stdout=subprocess.PIPE, check=True
            ).stdout
            status = answer[8:].split(b"\r\n")[0] if answer.startswith(b"Status: ") else b"200 OK"
            self.wfile.write(b"HTTP/1.0 " + status + b"\r\n" + answer)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class Having(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(base))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    with contextlib.ExitStack() as stack:
        urls = []
        for handler in (Speaking, Having):
            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.shutdown)
            urls.append(f"http://127.0.0.1:{server.server_port}")
        yield urls[0], urls[1]
