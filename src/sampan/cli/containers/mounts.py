"""`--mount` fields and `-v` texts as the API takes them."""

from __future__ import annotations

import os

from sampan.cli.containers.limits import comma_separated
from sampan.cli.values import size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BARE = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src", "u", "idmap")
_MATCH_USER = "match-user"


def _switch(key: str, value: str) -> bool:
    lowered = value.lower()
    if lowered in ("1", "t", "true"):
        return True
    if lowered in ("0", "f", "false"):
        return False
    raise ValueError(f"invalid value for {key}: {value}")


def parse_mount(text: str) -> dict[str, Any]:
    """One `--mount`.

    Raises:
        ValueError: wrong fields, in docker's words.
    """
    if not text:
        raise ValueError("EOF")
    mount: dict[str, Any] = {"Type": "volume"}
    for field in comma_separated(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if not equals and key not in _BARE:
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        if not equals:
            value = _MATCH_USER if key == "idmap" else "true"
        _mount_field(mount, key, value, field)
    kind = mount["Type"]
    if not kind:
        raise ValueError("type is required")
    if not mount.get("Target"):
        raise ValueError("target is required")
    for options, owner in (
        ("VolumeOptions", "volume"),
        ("BindOptions", "bind"),
        ("TmpfsOptions", "tmpfs"),
        ("ImageOptions", "image"),
    ):
        if options in mount and kind != owner and not (owner == "volume" and kind == "cluster"):
            raise ValueError(f"cannot mix '{owner}-*' options with mount type '{kind}'")
    if "VolumeOptions" in mount:
        mount["VolumeOptions"].setdefault("DriverConfig", {})
    bind = mount.get("BindOptions", {})
    if bind.get("ReadOnlyNonRecursive") and not mount.get("ReadOnly"):
        raise ValueError(
            "option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction"
        )
    if bind.get("ReadOnlyForceRecursive"):
        if not mount.get("ReadOnly"):
            raise ValueError(
                "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction"
            )
        if bind.get("Propagation") != "rprivate":
            raise ValueError(
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' "
                "to be specified in conjunction"
            )
    return mount


def _mount_field(mount: dict[str, Any], key: str, value: str, field: str) -> None:
    def options(name: str) -> dict[str, Any]:
        found: dict[str, Any] = mount.setdefault(name, {})
        return found

    if key == "type":
        mount["Type"] = value.lower()
    elif key in ("source", "src"):
        if value == "." or value.startswith(("./", "../")) or value == "..":
            value = os.path.abspath(value)
        mount["Source"] = value
    elif key in ("target", "dst", "destination"):
        mount["Target"] = value
    elif key in ("readonly", "ro"):
        mount["ReadOnly"] = _switch(key, value)
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif key == "bind-propagation":
        options("BindOptions")["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        options("BindOptions")["NonRecursive"] = _switch(key, value)
    elif key == "bind-create-src":
        options("BindOptions")["CreateMountpoint"] = _switch(key, value)
    elif key == "bind-recursive":
        if value == "disabled":
            options("BindOptions")["NonRecursive"] = True
        elif value == "writable":
            options("BindOptions")["ReadOnlyNonRecursive"] = True
        elif value == "readonly":
            options("BindOptions")["ReadOnlyForceRecursive"] = True
        elif value != "enabled":
            raise ValueError(
                f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", or "readonly")'
            )
    elif key == "volume-subpath":
        options("VolumeOptions")["Subpath"] = value
    elif key == "volume-nocopy":
        options("VolumeOptions")["NoCopy"] = _switch(key, value)
    elif key == "volume-label":
        name, _, label = value.partition("=")
        options("VolumeOptions").setdefault("Labels", {})[name] = label
    elif key == "volume-driver":
        options("VolumeOptions").setdefault("DriverConfig", {})["Name"] = value
    elif key == "volume-opt":
        name, _, option = value.partition("=")
        options("VolumeOptions").setdefault("DriverConfig", {}).setdefault("Options", {})[name] = option
    elif key == "idmap":
        mount["IDMap"] = _as_who(value)
    elif key == "u":
        mount["Chown"] = _switch(key, value)
    elif key == "image-subpath":
        options("ImageOptions")["Subpath"] = value
    elif key == "tmpfs-size":
        try:
            options("TmpfsOptions")["SizeBytes"] = size(value)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    elif key == "tmpfs-mode":
        try:
            options("TmpfsOptions")["Mode"] = int(value, 8)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def split_volumes(given: list[str]) -> tuple[list[str], dict[str, Any]]:
    """`-v` texts as binds and anonymous volumes; relative sources are made absolute."""
    binds: list[str] = []
    volumes: dict[str, Any] = {}
    for text in given:
        source, colon, rest = text.partition(":")
        if not colon:
            if not text:
                raise ValueError("invalid empty volume spec")
            volumes[text] = {}
            continue
        if len(text) > 2 and "" in text.split(":"):
            raise ValueError(f"invalid spec: {text}: empty section between colons")
        if source in (".", "..") or source.startswith(("./", "../")):
            source = os.path.abspath(source)
        elif source.startswith("~/"):
            source = os.path.expanduser(source)
        if rest.count(":") > 1:
            raise ValueError(f"invalid spec: {text}: too many colons")
        binds.append(f"{source}:{_with_owner(rest)}")
    return binds, volumes


def _as_who(owner: str) -> str:
    """Through sudo, `match-user` means who called it: the daemon would see root."""
    uid, gid = os.environ.get("SUDO_UID", ""), os.environ.get("SUDO_GID", "")
    if owner != _MATCH_USER or os.geteuid() != 0 or not (uid.isdecimal() and gid.isdecimal()):
        return owner
    return f"{uid}:{gid}"


def _with_owner(rest: str) -> str:
    target, colon, mode = rest.partition(":")
    words = mode.split(",")
    for index, word in enumerate(words):
        if word in ("idmap", f"idmap={_MATCH_USER}"):
            # a colon would end the mode
            words[index] = f"idmap={_as_who(_MATCH_USER).replace(':', '-')}"
    return f"{target}{colon}{','.join(words)}"


def parse_tmpfs(given: list[str]) -> dict[str, str]:
    """`--tmpfs` texts by target."""
    return {target: options for target, _, options in (one.partition(":") for one in given)}
