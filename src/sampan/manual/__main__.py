"""`python -m sampan.manual install|remove [FOLDER]`, which `sampan install-help` becomes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sampan.manual.places import COMPLETIONS, install, remove, standard


def main(words: list[str]) -> int:
    """The command line above."""
    share = Path(os.path.abspath(os.path.expanduser(words[1]))) if len(words) > 1 else standard()
    try:
        if words[0] == "remove":
            print(f"{remove(share)} files removed from {share}")
            return 0
        print(f"{install(share)} pages of the manual, and completion for bash, zsh and fish, in {share}")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        print(
            f"cannot write {error.filename or share}: {reason}; --dir names another folder", file=sys.stderr
        )
        return 1
    if share != Path("/usr/local/share"):
        zsh = share / COMPLETIONS["zsh"]
        print(f"zsh finds it once ~/.zshrc has, before compinit:  fpath+=({zsh.parent})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
