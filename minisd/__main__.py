"""The command line, `python -m minisd "a red car"`: see cli/main.py."""

import sys
from importlib import import_module

if __name__ == "__main__":
    sys.exit(import_module("minisd.cli.main").main())
