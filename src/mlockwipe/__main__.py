# SPDX-License-Identifier: MIT
"""`python -m mlockwipe` is the command `mlockwipe`."""

import sys

from mlockwipe.cli import main

if __name__ == "__main__":
    sys.exit(main())
