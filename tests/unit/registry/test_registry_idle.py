"""A daemon that has not spoken to a registry does not carry what that takes."""

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "src"


def test_idle_daemon_has_no_http_client():
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        "import sampan.daemon.service\n"
        "from sampan.registry import Registries\n"
        "from sampan.oci.reference import parse\n"
        "Registries().repository(parse('127.0.0.1:1/x'))\n"
        "print(sorted({'urllib3', 'http.client', 'email', 'tomllib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
