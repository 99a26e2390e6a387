"""`python -m kerastrain` is the command `kerastrain`."""

import sys

from kerastrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
