"""One trial, in a child process of its own: what it makes of namespaces and mounts ends with it."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
from collections.abc import Callable

from sampan.dataclasses import dataclass
from sampan.doctor.model import FAILS, NEEDS_ROOT, NOT_TRIED, WORKS, Outcome
from sampan.doctor.trials.place import Place
from sampan.errors import SampanError
from sampan.linux import features, process, syscalls

_PATIENCE_S = 20.0


class Fails(Exception):
    """A trial failed and knows why.

    Args:
        cause: why.
        remedy: what mends it.
    """

    def __init__(self, cause: str, remedy: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.remedy = remedy


class NotTried(Exception):
    """A trial cannot be made here; the text says why."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing to try.

    Attributes:
        work: does it; returns a detail to show. A refusal is raised as it comes.
        without: what does not work when it fails.
        feature: the part of the kernel that it takes, by its name in `features.FEATURES`.
        needed: whether no container runs as it should without.
        remedy: what mends it, where the feature's diagnosis is not it.
        rootless: whether it can be tried by others than root.
        apart: `CLONE_NEW…`: what to leave behind before.
        here: whether it is done in this process, as it only reads or undoes what it does by itself.
    """

    name: str
    work: Callable[[Place], str | None]
    without: str = ""
    feature: str = ""
    needed: bool = False
    remedy: str = ""
    rootless: bool = False
    apart: int = 0
    here: bool = False


def attempt(trial: Trial, place: Place) -> Outcome:
    """Try it."""
    if os.geteuid() != 0 and not trial.rootless:
        return Outcome(trial.name, NOT_TRIED, trial.needed, NEEDS_ROOT)
    found = _do(trial, place) if trial.here else _in_child(trial, place)
    return Outcome(trial.name, found[0], trial.needed, found[1], trial.without, found[2])


_Found = tuple[str, str, str]  # state, detail, remedy


def _do(trial: Trial, place: Place) -> _Found:
    try:
        if trial.apart:
            _leave(trial.apart)
        return WORKS, trial.work(place) or "", ""
    except NotTried as reason:
        return NOT_TRIED, str(reason), ""
    except Fails as failure:
        return FAILS, failure.cause, failure.remedy or trial.remedy
    except SampanError as error:
        return FAILS, *_explained(trial, error.message, _number_behind(error))
    except OSError as error:
        where = f" ({error.filename})" if isinstance(error.filename, str) else ""
        return FAILS, *_explained(trial, f"{error.strerror or error}{where}", error.errno or 0)


def _leave(flags: int) -> None:
    try:
        syscalls.unshare(flags)
        if flags & syscalls.CLONE_NEWNS:
            syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    except OSError as error:
        raise NotTried(f"it would need namespaces of its own: {error.strerror}") from None


def _number_behind(error: BaseException) -> int:
    cause = error.__cause__
    return (cause.errno or 0) if isinstance(cause, OSError) else 0


_ABSENT = {
    errno.ENOSYS, errno.ENODEV, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL, errno.ENOENT,
    errno.EAFNOSUPPORT,
}  # fmt: skip
_REFUSED = {errno.EPERM, errno.EACCES, errno.EROFS}


def _explained(trial: Trial, text: str, number: int) -> tuple[str, str]:
    """What was said, with the kernel's diagnosis where it lacks the feature."""
    if trial.feature and number in _ABSENT:
        found = features.diagnose(trial.feature)
        if found.cause in text:  # the daemon's own code has said so already
            return text, trial.remedy or found.remedy
        if found.present and number == errno.ENOSYS:
            return f"{text}: something around this process hides it, as the kernel has it", found.remedy
        title = features.FEATURES[trial.feature].title
        return f"{text}: no {title}: {found.cause}", trial.remedy or found.remedy
    return text, trial.remedy or (features.PRIVILEGED if number in _REFUSED else "")


def _in_child(trial: Trial, place: Place) -> _Found:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            process.die_with_parent()
            found: _Found = (FAILS, "it ended without a word", "")
            if os.getppid() == parent:
                try:
                    found = _do(trial, place)
                except Exception as error:  # ours: shown as what it is, beside the other trials
                    found = (FAILS, f"internal error: {type(error).__name__}: {error}", "")
            os.write(writer, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        return _hear(reader, pid)
    finally:
        os.close(reader)
        os.waitpid(pid, 0)


def _hear(reader: int, pid: int) -> _Found:
    data = b""
    while select.select([reader], [], [], _PATIENCE_S)[0]:
        piece = os.read(reader, 65536)
        if not piece:
            break
        data += piece
    else:
        os.kill(pid, signal.SIGKILL)
        return FAILS, f"it did not end within {_PATIENCE_S:.0f} seconds", ""
    if not data:
        return FAILS, "the process that tried it was killed", ""
    state, detail, remedy = json.loads(data)
    return state, detail, remedy


def grandchild(flags: int, work: Callable[[], None]) -> None:
    """Do `work` in a process that is born in new namespaces, as a container is.

    Raises:
        OSError: what it raised, or why it could not be born.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = process.clone(flags)
        if pid == 0:
            try:
                work()
                os.write(writer, b"[]")
            except OSError as error:
                os.write(writer, json.dumps([error.errno, error.strerror, error.filename]).encode())
            finally:
                os._exit(0)
        os.close(pidfd)
        os.waitpid(pid, 0)
        os.set_blocking(reader, False)
        try:
            said = json.loads(os.read(reader, 65536))
        except BlockingIOError:
            raise OSError(errno.ECHILD, "the process in the new namespaces was killed") from None
    finally:
        os.close(reader)
        os.close(writer)
    if said:
        raise OSError(*said)
