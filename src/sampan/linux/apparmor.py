"""AppArmor as the kernel shows it: whether it is on, which profiles are loaded (apparmor(7), apparmorfs).

Profiles are compiled by apparmor_parser(8), which is Debian's package `apparmor`; the kernel takes no text.
"""

from __future__ import annotations

import os
from functools import cache

_ENABLED = "/sys/module/apparmor/parameters/enabled"
_PROFILES = "/sys/kernel/security/apparmor/profiles"
PARSER = "/sbin/apparmor_parser"
_PARSER_TIMEOUT_S = 60


@cache
def enabled() -> bool:
    """Whether the kernel confines processes by AppArmor."""
    try:
        with open(_ENABLED, encoding="ascii") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def visible() -> bool:
    """Whether securityfs is mounted, without which no profile can be looked up or loaded."""
    return os.path.exists(_PROFILES)


def loaded(profile: str) -> bool:
    """Whether the kernel has a profile of this name."""
    try:
        with open(_PROFILES, encoding="utf-8", errors="replace") as file:
            return any(line.rpartition(" (")[0] == profile for line in file)
    except OSError:
        return False


def load(text: str) -> None:
    """Compile a profile and give it to the kernel, in the place of one of the same name.

    Raises:
        FileNotFoundError: there is no apparmor_parser.
        OSError: it refused the profile; the message is its own.
    """
    import subprocess

    command = [PARSER, "--replace", "--skip-cache"]
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_PARSER_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise OSError(5, f"{PARSER} does not end") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise OSError(5, said[-1] if said else f"{PARSER} failed with exit status {done.returncode}")
