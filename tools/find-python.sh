# For ./sampan and ./test: find_python sets found_python to a Python that is new enough, or says what to install.

find_python() {
    for found_python in python3 python3.14 python3.13 python3.12 python3.11; do
        command -v "$found_python" >/dev/null 2>&1 || continue
        "$found_python" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return 0
    done
    echo "sampan: no Python 3.11 or newer found; install one first (Debian, Ubuntu: apt-get install python3 python3-venv)" >&2
    return 1
}
