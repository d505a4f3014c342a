"""`python -m tfprune_cli`: the command line."""

import sys

from tfprune_cli import main

if __name__ == "__main__":
    sys.exit(main())
