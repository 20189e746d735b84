"""Volumes whose files lie elsewhere (another directory, a tmpfs, a server), mounted on their `_data`.

By mount(2), with option names as mount(8) has them. One is mounted when its first user starts and unmounted
after its last: users are held in memory and told again at start-up by who adopts what still runs.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from sampan.errors import InvalidParameter, SampanError
from sampan.linux import mounts, syscalls
from sampan.linux.mounts import MountOptions, parse_options
from sampan.volumes.options import without_password

# Flags of mount(2) that are the whole file system's, not one mount's.
_FLAGS = {"sync": 0x10, "dirsync": 0x80, "mand": 0x40, "async": 0, "nomand": 0}


def mount(target: Path, options: Mapping[str, str]) -> None:
    """Mount what the options of a volume describe.

    Raises:
        InvalidParameter: a server's name that nobody knows.
        SampanError: the kernel refused; in Docker's words, without passwords.
    """
    kind, device = options["type"], options["device"]
    text = options.get("o", "")
    if kind in ("nfs", "nfs4", "cifs"):
        text, device = _with_addresses(kind, text, device)
    wanted, flags = _sorted(text)
    try:
        _mount(device, str(target), kind, wanted, flags)
    except OSError as error:
        shown = f", data: {without_password(','.join(wanted.data))}" if wanted.data else ""
        reason = (os.strerror(error.errno) if error.errno else str(error)).lower()
        raise SampanError(
            f"error while mounting volume '{target}': failed to mount local volume: mount {device}:{target}"
            f"{shown}: {reason}"
        ) from error


def _sorted(text: str) -> tuple[MountOptions, int]:
    """Options by what becomes of them, and the flags that only mount(2) has."""
    names = [name for name in text.split(",") if name]
    flags = 0
    for name in names:
        flags |= _FLAGS.get(name, 0)
    return parse_options(name for name in names if name not in _FLAGS), flags


def _mount(device: str, target: str, kind: str, wanted: MountOptions, flags: int) -> None:
    if wanted.bind:
        syscalls.mount(device, target, None, syscalls.MS_BIND | (syscalls.MS_REC if wanted.recursive else 0))
    else:
        flags |= mounts.legacy_flags(wanted.set | wanted.tree_set)
        syscalls.mount(device, target, kind, flags, ",".join(wanted.data) or None)
    try:
        if wanted.bind and (wanted.set or wanted.clear or wanted.tree_set or wanted.tree_clear):
            fd = os.open(target, os.O_PATH | os.O_CLOEXEC)
            try:
                mounts.legacy_change(fd, wanted)
            finally:
                os.close(fd)
        for propagation, recursive in wanted.propagation:
            syscalls.mount(None, target, None, propagation | (syscalls.MS_REC if recursive else 0))
    except BaseException:
        syscalls.umount2(target, syscalls.MNT_DETACH)
        raise


def _with_addresses(kind: str, text: str, device: str) -> tuple[str, str]:
    """The kernel wants addresses where people write names."""
    words = text.split(",") if text else []
    for index, word in enumerate(words):
        if word.startswith("addr="):
            words[index] = f"addr={_address(word[5:])}"
            return ",".join(words), device
    if kind == "cifs" and (host := urlsplit(device).hostname):
        device = device.replace(host, _address(host), 1)
    return text, device


def _address(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        why = error.strerror or error
        raise InvalidParameter(f"error resolving passed in network volume address: {host}: {why}") from None


def unmount_below(directory: Path) -> None:
    """Take away every mount below a volume's directory, the last one first."""
    for point in reversed(mounts.points_below(str(directory))):
        syscalls.umount2(point, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
