"""A daemon's first container waits for no import: what its way needs is there when the daemon answers."""

import pytest

pytestmark = pytest.mark.daemon


def test_a_first_run_and_exec_import_nothing(make_daemon):
    daemon = make_daemon()
    daemon.wrapper = ["env", "PYTHONPROFILEIMPORTTIME=1"]  # each import is told in the log
    try:
        daemon.start()
        assert daemon.busybox
        daemon.restart()
        before = len(daemon.log_text())
        docker = daemon.docker
        assert docker("run", "--rm", "busybox", "echo", "a").out == "a\n"
        docker(
            "run", "-d", "--name", "first", "-v", "files:/v", "-p", "127.0.0.1::80", "busybox", "sleep", "600"
        )
        assert docker("exec", "first", "echo", "b").out == "b\n"
        assert "first" in docker("ps").out
        told = daemon.log_text()
        assert "import time:" in told[:before]
        assert [line for line in told[before:].splitlines() if "import time:" in line] == []
        assert daemon.api.get("/debug/vars")["gc_enabled"]  # which the imports are spared
        docker("cp", "first:/etc/passwd", "-")
        assert "sampan.api.routes.archive" in daemon.log_text()[before:]
    finally:
        daemon.end()
