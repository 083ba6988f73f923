"""Rows that take long to compile: each in a process of its own, kept in a file, then a page."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Kept(Protocol):
    """A row: its name, and where it is kept."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> Path: ...


def main(
    script: str, about: str, rows: Sequence[Kept], compile_row: Callable[[Any], dict[str, Any]],
    make_page: Callable[[], None], args: list[str] | None, environment: Mapping[str, str],
) -> None:
    """The command line of such a script: makes what is missing, and the page of what there is.

    Args:
      script: its file.
      about: what it says of itself.
      rows: all of them.
      compile_row: the figures of one, in this process.
      make_page: writes the page.
      args: of the command line.
      environment: variables for the processes of rows, beside those that there are.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--page", action="store_true", help="only write the page")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    given = parser.parse_args(args)
    if given.row:
        row = next(r for r in rows if r.name == given.row)
        text = json.dumps(compile_row(row), indent=1) + "\n"
        row.path.parent.mkdir(parents=True, exist_ok=True)
        partial = row.path.with_suffix(".partial")
        partial.write_text(text)
        partial.rename(row.path)
        return
    failed = []
    for row in () if given.page else rows:
        if given.only in row.name and not row.path.exists():
            print(row.name, flush=True)
            command = [sys.executable, script, "--row", row.name]
            if subprocess.run(command, check=False, env=os.environ | environment).returncode:
                failed.append(row.name)
    make_page()
    if failed:
        raise SystemExit(f"not compiled: {', '.join(failed)}")
