#!/usr/bin/env python3
"""Shows where the time of training goes: `python scripts/profile.py ENV [options]`."""

import sys
from pathlib import Path

# This folder would stand first where modules are looked for, and this file is named like one of
# the standard library's.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]

from jtrust.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["profile", *sys.argv[1:]]))
