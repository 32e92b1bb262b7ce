"""`python -m minisd.toyworld.train`: the training, under its documented name."""

import sys

from minisd.toyworld.training.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
