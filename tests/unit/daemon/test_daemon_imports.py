"""What a daemon may import before it answers: each module makes every start longer."""

import subprocess
import sys
from pathlib import Path

from sampan.api import app
from sampan.http import Router
from support.nursery import SELDOM

SOURCE = Path(__file__).parents[3] / "src"
# What few daemons are asked for, and standard modules that are dear or nobody's here.
ABSENT = {
    *SELDOM,
    *(f"sampan.api.routes.{name}" for name in ("archive", "building", "registries", "unoffered", "usage")),
    *("sampan.doctor", "sampan.manifests", "sampan.registry.server", "sampan.rootless", "sampan.cli"),
    *("argparse", "csv", "email", "http.client", "multiprocessing", "tomllib", "unittest", "xml", "yaml"),
}


def test_the_start_does_without_what_few_daemons_need():
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        "import sampan.daemon.service\n"
        "from sampan.daemon.settings import settle\n"
        "from sampan.api.app import router\n"
        "from sampan.http.protocol import Protocol\n"
        "from sampan.oci.reference import parse\n"
        "from sampan.registry import Registries\n"
        "assert router().match('POST', '/containers/c/start')\n"
        "Protocol().receive(b'GET /_ping HTTP/1.1\\r\\nHost: d\\r\\n\\r\\n')\n"
        "Registries().repository(parse('127.0.0.1:1/x'))\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "sampan.engine.starting" in loaded
    assert not loaded & ABSENT


def test_no_route_of_the_rest_is_taken_by_another_before_it():
    alone = app.router()
    alone._rest = None
    for table in app.rest():
        for entry in table.entries:
            path = entry.pattern.replace(":path", "").replace("{", "a").replace("}", "z")
            assert alone.match(entry.method, path) is None, entry
            found = app.router().match(entry.method, path)
            assert found is not None
            assert found[0] is entry.handler


def test_the_rest_of_the_routes_is_made_once_and_only_when_nothing_else_answers():
    made = []

    def rest():
        made.append(1)
        return app.rest()

    router = Router([], rest)
    assert not made
    assert router.match("POST", "/build")
    assert router.match("GET", "/nothing/such") is None
    assert router.match("POST", "/commit")
    assert made == [1]
