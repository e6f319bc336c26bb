"""``python -m alignite.demo``, which is what ``make demo`` runs."""

from __future__ import annotations

import sys

from alignite.demo.run import main

if __name__ == "__main__":
    sys.exit(main())
