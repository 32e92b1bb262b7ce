"""Where models lie: the user's own files, and the one model that ships.

Nothing here imports torch, so that the command line can look before it waits for that.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
CHECKOUT = PACKAGE.parent / "weights"       # beside the package, where it lies in a checkout
INSTALLED = PACKAGE / "shipped"             # inside the package, where it was installed


def weights_folder() -> Path:
    """The checkout's weights/ where there is one, else a folder in the user's data."""
    if (CHECKOUT / "README.md").is_file() or (CHECKOUT / "toyworld").is_dir():
        return CHECKOUT
    usual = {"win32": "~/AppData/Local", "darwin": "~/Library/Application Support"}
    named = {"win32": "LOCALAPPDATA", "darwin": ""}.get(sys.platform, "XDG_DATA_HOME")
    home = os.environ.get(named, "")
    if not os.path.isabs(home):             # a relative one counts for nothing, by XDG's rule
        home = os.path.expanduser(usual.get(sys.platform, "~/.local/share"))
    return Path(home) / "minisd" / "weights"


def shipped_folder() -> Path:
    """toyworld, in the checkout or in the installed package."""
    in_checkout = CHECKOUT / "toyworld"
    return in_checkout if in_checkout.is_dir() or not INSTALLED.is_dir() else INSTALLED


WEIGHTS = weights_folder()
SHIPPED = shipped_folder()


def short(place: Path) -> str:
    """A place as it reads from the folder around weights/, else from the user's home."""
    for base, prefix in ((WEIGHTS.parent, ""), (Path(os.path.expanduser("~")), "~/")):
        if place.is_relative_to(base):
            return prefix + place.relative_to(base).as_posix()
    return str(place)
