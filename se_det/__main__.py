"""`python -m se_det` is `se-det`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
