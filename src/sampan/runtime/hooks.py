"""Hooks: programs that the bundle wants run at points of the container's life (OCI runtime spec, hooks)."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
from collections.abc import Mapping, Sequence

from sampan.linux import syscalls
from sampan.runtime.bundle import HookSpec


def run_all(hooks: Sequence[HookSpec], state: Mapping[str, object]) -> None:
    """Run hooks one after the other, each with the container's state as JSON on stdin.

    Raises:
        OSError: the first that fails or takes longer than its timeout.
    """
    for hook in hooks:
        _run(hook, json.dumps(state).encode())


def _run(hook: HookSpec, text: bytes) -> None:
    environment = dict(entry.partition("=")[::2] for entry in hook.env if "=" in entry)
    # A memory file, not a pipe: a hook that never reads must not block us.
    stdin = os.memfd_create("state")
    try:
        os.write(stdin, text)
        os.lseek(stdin, 0, os.SEEK_SET)
        pid = os.posix_spawn(
            hook.path, hook.args, environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, stdin, 0)],
            setsigdef=range(1, signal.SIGRTMIN),
            setsigmask=(),
        )  # fmt: skip
    except OSError as error:
        raise OSError(error.errno, f"hook {hook.path}: {error.strerror}") from None
    finally:
        os.close(stdin)
    pidfd = syscalls.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(None if hook.timeout_s is None else hook.timeout_s * 1000):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise OSError(errno.ETIMEDOUT, f"hook {hook.path}: took longer than {hook.timeout_s} s")
    finally:
        os.close(pidfd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        raise OSError(errno.ECANCELED, f"hook {hook.path}: exit status {code}")
