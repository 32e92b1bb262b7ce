"""`python -m minisd.toyworld.evaluate`: the evaluation, under its documented name."""

import sys

from minisd.toyworld.evaluation.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
