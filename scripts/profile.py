#!/usr/bin/env python3
"""Shows where the time of training goes: `python scripts/profile.py ENV [options]`."""

import importlib
import sys
from pathlib import Path

# A script's folder stands first where modules are looked for, and this file is named like one of
# the standard library's, which MuJoCo's warp imports: there that one is meant.
sys.path = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
if __name__ == "__main__":
    from jtrust.cli import main

    sys.exit(main(["profile", *sys.argv[1:]]))
elif __name__ == "profile":
    del sys.modules[__name__]
    importlib.import_module(__name__)
