"""The kernel's build configuration: where it lies, what is in it (Documentation/kbuild/kconfig.rst).

`CONFIG_X=y` is part of the kernel, `CONFIG_X=m` a module, a comment or nothing stands for what was left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from sampan.dataclasses import dataclass

PROC = "/proc/config.gz"
_LIMIT_BYTES = 8 << 20  # those of distributions have 300 kB
_OPTION = re.compile(r"^CONFIG_(\w+)=([ym])$", re.MULTILINE)
_TITLE = re.compile(r"^# Linux/\S+ (\d+)\.(\d+)\S* Kernel Configuration", re.MULTILINE)
_VERSION = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Config:
    """A kernel's configuration.

    Attributes:
        path: the file that it was read from.
        version: of the kernel, by the file's title, else its name; None when neither tells.
        options: name without `CONFIG_` to "y" or "m".
    """

    path: str
    version: tuple[int, int] | None
    options: Mapping[str, str]

    def has(self, option: str) -> bool:
        """Whether the option is built in or a module."""
        return option in self.options

    def is_module(self, option: str) -> bool:
        """Whether the option is a module."""
        return self.options.get(option) == "m"


def places(release: str) -> tuple[str, ...]:
    """Where the configuration of the running kernel `release` may lie, the best one first."""
    return (
        PROC,
        f"/boot/config-{release}",
        f"/lib/modules/{release}/config",
        f"/usr/lib/modules/{release}/config",
        f"/lib/modules/{release}/build/.config",
        f"/usr/src/linux-{release}/.config",
        f"/usr/src/linux-headers-{release}/.config",
    )


def find(release: str | None = None) -> Config | None:
    """The configuration of the running kernel, or None where it is not to be had."""
    for path in places(release or os.uname().release):
        try:
            return read(path)
        except (OSError, ValueError):
            continue  # the next one; who asks for a file by its name calls `read`
    return None


def read(path: str) -> Config:
    """Read a configuration, compressed by gzip or plain.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none.
    """
    with open(path, "rb") as file:
        data = file.read(_LIMIT_BYTES + 1)
    if data[:2] == b"\x1f\x8b":
        import zlib

        unpacker = zlib.decompressobj(wbits=31)
        try:
            data = unpacker.decompress(data, _LIMIT_BYTES + 1)
        except zlib.error as error:
            raise ValueError(f"{path} is damaged: {error}") from None
    if len(data) > _LIMIT_BYTES:
        raise ValueError(f"{path} is too large for a kernel configuration")
    return parse(data.decode("utf-8", "replace"), path)


def parse(text: str, path: str) -> Config:
    """The configuration that `text` is.

    Raises:
        ValueError: there is no option in it.
    """
    options = dict(_OPTION.findall(text))
    if not options:
        raise ValueError(f"{path} is no kernel configuration: it has no line CONFIG_…=y")
    found = _TITLE.search(text) or _VERSION.search(os.path.basename(path))
    return Config(path, (int(found[1]), int(found[2])) if found else None, options)
