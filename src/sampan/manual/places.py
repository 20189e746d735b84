"""Which files of the manual and of completion lie where below a folder `share`, and putting them there.

man(1) looks in `share/man` beside each `bin` of the PATH (manpath(5)); bash-completion and fish look in
folders of the user's and the system's `share` (XDG base directories); zsh where its `fpath` leads to.
"""

from __future__ import annotations

import os
from pathlib import Path

from sampan.cli.completing.scripts import script
from sampan.manual.pages import write_man

# Below `share`; zsh's is the one of programs that no package of the distribution has brought.
COMPLETIONS = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/site-functions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}
PAGES = ("man/man1/sampan.1", "man/man1/sampan-*.1", "man/man8/sampand.8")


def completions(command: str = "sampan") -> dict[str, str]:
    """The script of each shell, for a command of this name."""
    return {shell: script(shell, command, True) for shell in COMPLETIONS}


def standard() -> Path:
    """The folder `share` that is looked into without more ado: the machine's for root, else the user's."""
    if os.geteuid() == 0:
        return Path("/usr/local/share")
    return Path(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"))


def install(share: Path) -> int:
    """Put all of it below `share`, in the place of an older release's; how many pages there are.

    Raises:
        OSError: a file cannot be written.
    """
    scripts = completions()  # first: what has been removed is there again in a moment
    remove(share)
    for shell, text in scripts.items():
        place = share / COMPLETIONS[shell].format("sampan")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return write_man(share / "man")


def remove(share: Path) -> int:
    """Take away what `install` has put there, of whichever release; how many files that were.

    Raises:
        OSError: a file cannot be removed.
    """
    found = [path for pattern in PAGES for path in share.glob(pattern)]
    places = (share / place.format("sampan") for place in COMPLETIONS.values())
    found += [path for path in places if path.exists()]
    for path in found:
        path.unlink()
    return len(found)
