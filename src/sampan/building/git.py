"""Contexts from Git: cloned by the program git, as dockerd does, with nothing of the machine's own settings.

A repository, and who serves it, are strangers: git gets no configuration, no hooks, no prompt, and only the
protocols named here, for submodules and redirections too. URLs and refs that could be taken for options are
refused.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from typing import IO, cast

from sampan.building.ending import Ending
from sampan.dataclasses import dataclass
from sampan.errors import InvalidParameter, Unsupported
from sampan.linux import beneath

_PREFIXES = ("git://", "git@", "ssh://", "github.com/")
_HTTP = re.compile(r"https?://.*\.git")
_ADDRESS = re.compile(
    r"(?:https?|git|ssh)://(?:[^/@-][^/@]*@)?[A-Za-z0-9\[][^/]*/.+|git@[A-Za-z0-9][^:/]*:[^-].*"
)
_REF = re.compile(r"[A-Za-z0-9_][^\s~^:?*\[\\\x00-\x1f\x7f]*")
_ENVIRONMENT = {
    "HOME": "/dev/null",
    "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
# Ends the program and all that it has started when the other end of its first input is closed, as it is when
# the daemon dies: git would wait for a server that says nothing.
_WATCHED = 'exec 3<&0; (read -r end <&3; kill -KILL 0) >/dev/null 2>&1 & exec "$@" </dev/null 3<&-'
_PATIENCE_S = 0.05  # how often is looked whether the build is to end
_LAST_WORDS = 4000
_PIECE_BYTES = 1 << 16


def is_git(url: str) -> bool:
    """Whether a context's URL is one of a repository, by Docker's rule."""
    return url.startswith(_PREFIXES) or _HTTP.fullmatch(url.partition("#")[0]) is not None


@dataclass(frozen=True, slots=True)
class Repository:
    """What `URL#REF:DIRECTORY` means; `ref` is empty for the repository's own default."""

    url: str
    ref: str = ""
    subdirectory: str = ""


def repository(text: str) -> Repository:
    """The repository, ref and directory of a context's URL.

    Raises:
        InvalidParameter: it is malformed, or would be an option to git.
    """
    url, _, fragment = text.partition("#")
    ref, _, subdirectory = fragment.partition(":")
    url = f"https://{url}" if url.startswith("github.com/") else url
    if not _ADDRESS.fullmatch(url) or any(ord(one) < 33 for one in url):
        raise InvalidParameter(f"remote: {text!r} is no URL of a Git repository (https, http, git or ssh)")
    if ref and (not _REF.fullmatch(ref) or ".." in ref):
        raise InvalidParameter(f"invalid refspec: {ref}")
    return Repository(url, ref, subdirectory)


def clone(wanted: Repository, into: Path, keep: bool, ending: Ending) -> Path:
    """Clone a repository with its submodules; the directory that is the context.

    Args:
        into: a directory to be made.
        keep: leave `.git` in it.

    Raises:
        Unsupported: this machine has no git.
        InvalidParameter: it cannot be cloned, in git's words, or there is no such directory.
        BuildCancelled: nobody waits any more; git has ended.
    """
    program = shutil.which("git")
    if program is None:
        raise Unsupported(
            "contexts from Git need the program git here: install it, or clone and build in there"
        )
    into.mkdir(mode=0o755)

    def git(*words: str) -> str:
        return _run([program, "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0", *words], into, ending)

    git("init", "--quiet", "--template=")
    git("remote", "add", "--", "origin", wanted.url)
    try:
        git("fetch", "--quiet", "--depth=1", "--", "origin", wanted.ref or "HEAD")
        git("checkout", "--quiet", "FETCH_HEAD", "--")
    except InvalidParameter:  # a commit that is no branch's last, or a server that knows no depth
        git("fetch", "--quiet", "--tags", "--", "origin", "HEAD", "+refs/heads/*:refs/remotes/origin/*")
        found = "FETCH_HEAD"
        for one in (
            (f"refs/remotes/origin/{wanted.ref}", f"refs/tags/{wanted.ref}", wanted.ref) if wanted.ref else ()
        ):
            try:
                found = git(
                    "rev-parse", "--verify", "--quiet", "--end-of-options", f"{one}^{{commit}}"
                ).strip()
                break
            except InvalidParameter:
                found = ""
        if not found:
            raise InvalidParameter(f"{wanted.url}: no branch, tag or commit is {wanted.ref}") from None
        git("checkout", "--quiet", found, "--")
    if (into / ".gitmodules").is_file():
        update = ("submodule", "--quiet", "update", "--init", "--recursive")
        try:
            git(*update, "--depth=1")
        except InvalidParameter:  # such a server again
            git(*update)
    if not keep:
        _forget_git(into)
    return inside(into, wanted.subdirectory)


def _run(command: list[str], directory: Path, ending: Ending) -> str:
    own = {
        name: value
        for name, value in os.environ.items()
        if name.lower().endswith("_proxy") or name == "SSH_AUTH_SOCK"
    }
    path = os.environ.get("PATH", os.defpath)
    process = subprocess.Popen(
        ["sh", "-c", _WATCHED, "sh", *command],
        cwd=directory,
        env={**_ENVIRONMENT, **own, "PATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        start_new_session=True,
    )
    with process:
        out, said = _heard(process, ending)
        process.wait()  # before its input is closed
    ending.check()
    if process.returncode:
        raise InvalidParameter(f"unable to prepare context: git: {_reason(said) or process.returncode}")
    return out


def _heard(process: subprocess.Popen[bytes], ending: Ending) -> tuple[str, str]:
    """The ends of what git writes to stdout and stderr; servers may have it say as much as they like."""
    kept = {pipe: bytearray() for pipe in (process.stdout, process.stderr) if pipe is not None}
    with selectors.DefaultSelector() as waiting:
        for pipe in kept:
            waiting.register(pipe, selectors.EVENT_READ)
        while waiting.get_map():
            if ending.is_set:
                os.killpg(process.pid, signal.SIGKILL)
                break
            for key, _ in waiting.select(_PATIENCE_S):
                piece = os.read(key.fd, _PIECE_BYTES)
                if not piece:
                    waiting.unregister(key.fileobj)
                last = kept[cast("IO[bytes]", key.fileobj)]
                last += piece
                del last[:-_LAST_WORDS]
    out, said = (bytes(last).decode("utf-8", "replace") for last in kept.values())
    return out, said


def _reason(said: str) -> str:
    """The line of what git has said that tells most; of ssh's, when that is what failed."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    fatal = next((at for at, line in enumerate(lines) if line.startswith("fatal: ")), len(lines) - 1)
    if fatal > 0 and lines[fatal] == "fatal: Could not read from remote repository.":
        fatal -= 1
    return "".join(one if one.isprintable() else "?" for one in lines[fatal]) if lines else ""


def _forget_git(directory: Path) -> None:
    """Remove `.git`, of submodules too; links are not followed."""
    for folder, folders, files in os.walk(directory):
        if ".git" in folders:
            folders.remove(".git")
            shutil.rmtree(os.path.join(folder, ".git"))
        if ".git" in files:
            os.unlink(os.path.join(folder, ".git"))


def inside(directory: Path, subdirectory: str) -> Path:
    """A directory of the repository, whatever links lie on the way.

    Raises:
        InvalidParameter: there is none.
    """
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        real = beneath.real_path(root, subdirectory)
        handle = beneath.open_path(root, real)
        try:
            if not stat.S_ISDIR(os.fstat(handle).st_mode):
                raise NotADirectoryError
        finally:
            os.close(handle)
    except OSError:
        raise InvalidParameter(
            f"unable to prepare context: {subdirectory} is no directory of the repository"
        ) from None
    finally:
        os.close(root)
    return Path(f"{directory}{real.rstrip('/')}")
