"""`--security-opt` and `--privileged`: which confinement a container gets."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from sampan.dataclasses import dataclass
from sampan.engine.model import HostConfig
from sampan.engine.profiles import apparmor
from sampan.engine.spec.seccomp import default_profile, parse_profile
from sampan.errors import InvalidParameter, SampanError, Unsupported
from sampan.linux import apparmor as kernel_apparmor


@dataclass(slots=True)
class SecurityOptions:
    """What the options say; None and "" where they say nothing."""

    seccomp: str = ""
    apparmor: str = ""
    no_new_privileges: bool = False
    system_paths_unconfined: bool = False
    writable_cgroups: bool = False


def parse(options: Iterable[str]) -> SecurityOptions:
    """The options of `HostConfig.SecurityOpt`, where a profile file's text stands in for its path.

    Raises:
        InvalidParameter: one that nobody knows, in Docker's words.
        Unsupported: SELinux labels, or an AppArmor profile on a kernel that has none.
    """
    parsed = SecurityOptions()
    for option in options:
        if option == "no-new-privileges":
            parsed.no_new_privileges = True
            continue
        if option == "disable":
            continue
        separator = "=" if "=" in option else ":"
        key, found, value = option.partition(separator)
        if not found:
            raise InvalidParameter(f'invalid --security-opt 1: "{option}"')
        if key == "seccomp":
            parsed.seccomp = value
        elif key == "apparmor":
            parsed.apparmor = value
        elif key == "no-new-privileges":
            parsed.no_new_privileges = _boolean(value, option)
        elif key == "writable-cgroups":
            parsed.writable_cgroups = _boolean(value, option)
        elif key == "systempaths" and value == "unconfined":
            parsed.system_paths_unconfined = True
        elif key == "label":
            if value != "disable":
                raise Unsupported(f"--security-opt {option}: SELinux labels are not offered yet")
        else:
            raise InvalidParameter(f'invalid --security-opt 2: "{option}"')
    _check_apparmor(parsed.apparmor)
    return parsed


def _boolean(text: str, option: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidParameter(f'invalid --security-opt 2: "{option}"')


def _check_apparmor(profile: str) -> None:
    if profile in ("", "unconfined"):
        return
    if not apparmor.supported():
        why = apparmor.lacking() or "this kernel does not have AppArmor enabled"
        raise Unsupported(f"--security-opt apparmor={profile}: {why}")
    if profile != apparmor.NAME and not kernel_apparmor.loaded(profile):
        raise InvalidParameter(
            f"--security-opt apparmor={profile}: the profile is not loaded; load it with apparmor_parser"
        )


def apparmor_profile(options: SecurityOptions, privileged: bool) -> str:
    """The profile to name in the spec; "" for none, on a machine without AppArmor."""
    if not apparmor.supported():
        return ""
    return options.apparmor or ("unconfined" if privileged else apparmor.NAME)


def confined_by(host_config: HostConfig) -> str:
    """The AppArmor profile that `inspect` shows; "" for none."""
    try:
        options = parse(host_config.security_opt or [])
    except SampanError:  # a profile that was there at the container's creation, and is not any more
        return ""
    return apparmor_profile(options, host_config.privileged)


def seccomp_profile(
    options: SecurityOptions, host_config: HostConfig, capabilities: Collection[str]
) -> dict[str, Any] | None:
    """The OCI profile; None for no filter.

    Raises:
        InvalidParameter: the user's profile is none.
    """
    if options.seccomp == "unconfined" or (host_config.privileged and not options.seccomp):
        return None
    if options.seccomp in ("", "builtin", "default"):
        return default_profile(capabilities)
    return parse_profile(options.seccomp, capabilities)
