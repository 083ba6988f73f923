#!/usr/bin/env python3
"""Trains a policy: `python scripts/train.py ENV [options]`, as `jtrust train`."""

import sys

from jtrust.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
