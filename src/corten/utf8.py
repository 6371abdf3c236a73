"""File names are UTF-8 here, whatever the locale of who started the program: another one would give an image's files other names.

Python takes the encoding of names from the locale once, when it starts; so it has to be started again. (The C locale means UTF-8 to it.)
"""

from __future__ import annotations

import os
import sys


def speak_utf8() -> None:
    """Replace this process by itself in UTF-8 mode, unless names are UTF-8 already."""
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], {**os.environ, "PYTHONUTF8": "1"})
