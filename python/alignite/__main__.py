"""``python -m alignite``."""

from __future__ import annotations

import sys

from alignite.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
