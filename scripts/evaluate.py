#!/usr/bin/env python3
"""Evaluates a run: `python scripts/evaluate.py RUN_DIR [options]`, as `jtrust evaluate`."""

import sys

from jtrust.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
