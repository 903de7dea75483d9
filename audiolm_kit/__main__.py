"""`python -m audiolm_kit` is `audiolm-kit`."""

import sys

from audiolm_kit.cli import main

if __name__ == "__main__":
    sys.exit(main())
